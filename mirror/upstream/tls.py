"""How the mirror trusts an upstream."""

import ssl


def client_context() -> ssl.SSLContext:
    """Return a context that trusts the system's CAs, or those SSL_CERT_FILE and SSL_CERT_DIR name (OpenSSL's rule).

    Python 3.13 began to refuse CAs that leave out what RFC 5280 wants of them, as those of companies do that look into
    TLS; Ollama, and every other program of such a machine, takes them.
    """
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context
