"""Which web pages may ask, and by which names: what keeps a browser from being used against the mirror behind it."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from mirror.config import Settings

_LOCAL = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104  # compared only
_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_OLLAMAS = (
    *(f"{scheme}://{host}{port}" for scheme in ("http", "https") for host in _LOCAL for port in ("", ":*")),
    *(f"{scheme}://*" for scheme in _SCHEMES),
)
"""Pages that Ollama lets use its API by itself (envconfig/config.go, AllowedOrigins)."""
_SUFFIXES = (".localhost", ".local", ".internal", ".lan")
_LONGEST = 500


class Pages:
    """The pages of others that may use ``/api`` and ``/v1``: Ollama's, and those of ``security.origins``."""

    def __init__(self, more: Iterable[str]) -> None:
        patterns = "|".join(_pattern(one) for one in (*_OLLAMAS, *more))
        self._allowed = re.compile(patterns, re.IGNORECASE | re.ASCII)

    def allow(self, origin: str) -> bool:
        """Say whether a page of ``origin`` may."""
        return len(origin) <= _LONGEST and self._allowed.fullmatch(origin) is not None


def is_same(origin: str, host: str) -> bool:
    """Say whether a page comes from the host that it asks (the Host header)."""
    return origin.lower().partition("://")[2] == host.lower()


class OwnNames:
    """Names by which the mirror is called that a stranger's DNS cannot lead to it (DNS rebinding).

    A page of evil.example whose name is made to mean this machine is no foreign page to a browser; what gives it away
    is the Host header. Addresses, ``localhost``, names without a dot and those that no public DNS has are safe, and so
    are those the settings name (``server.names``, ``server.public_url``, ``server.host``).
    """

    def __init__(self, settings: Settings) -> None:
        said = [socket.gethostname(), "localhost", settings.server.host, *settings.server.names]
        if settings.server.public_url is not None:
            said.append(urlsplit(settings.server.public_url).hostname or "")
        self._names = frozenset(_name_of(one) for one in said) - {""}

    def has(self, host: str) -> bool:
        """Say whether a Host header is one of them."""
        name = _name_of(host)
        if name in self._names or (name and "." not in name and ":" not in name) or name.endswith(_SUFFIXES):
            return True
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True


def _name_of(host: str) -> str:
    """Return the name in a Host header: without port, brackets and final dot, in lower case."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    if name.count(":") == 1:
        name = name.partition(":")[0]
    return name.rstrip(".")


def _pattern(text: str) -> str:
    return re.escape(text).replace(r"\*", "[^/]*")
