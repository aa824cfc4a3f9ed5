"""Whom an Ollama on this machine trusts: Go's rule on Linux (crypto/x509/root_unix.go, root_linux.go)."""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_FOLDERS = ("/etc/ssl/certs", "/etc/pki/tls/certs")


def roots(environ: Mapping[str, str], more: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts what Go would with this environment, and ``more``. Blocks; what is no PEM is passed.

    SSL_CERT_FILE takes the place of the system's bundle, SSL_CERT_DIR (folders with colons between) that of the
    system's folders; the one without the other leaves the other's default standing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in (
        *_bundles(environ.get("SSL_CERT_FILE")),
        *_entries(environ.get("SSL_CERT_DIR")),
        *([more] if more else []),
    ):
        with suppress(OSError):  # SSLError is one
            context.load_verify_locations(cafile=str(path))
    return context


def _bundles(said: str | None) -> Iterator[Path]:
    """Yield the first bundle that can be read."""
    for one in [said] if said else _FILES:
        if os.access(one, os.R_OK):
            yield Path(one)
            return


def _entries(said: str | None) -> Iterator[Path]:
    """Yield every file of the folders, but of links to a file beside them only the file."""
    for folder in said.split(":") if said else _FOLDERS:
        with suppress(OSError):
            for entry in sorted(Path(folder).iterdir()):
                if not (entry.is_symlink() and "/" not in os.readlink(entry)) and entry.is_file():
                    yield entry
