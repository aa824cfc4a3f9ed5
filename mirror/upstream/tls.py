"""How the mirror trusts an upstream."""

import ssl


def client_context() -> ssl.SSLContext:
    """Return a context that trusts the system's CAs, or those SSL_CERT_FILE and SSL_CERT_DIR name (OpenSSL's rule)."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
