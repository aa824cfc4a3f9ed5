"""Connections that threads carry bytes over: opened, checked, and kept for a while to be used again."""

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.request import getproxies, proxy_bypass

from aiohttp import encode_basic_auth
from yarl import URL

from mirror.errors import MirrorError, UpstreamUnavailable
from mirror.upstream.addresses import Guard

IDLE_S = 15.0
"""Routers forget connections without telling, and servers end them soon after this."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a blob's bytes are read: the answer to one resolution. ``proxy`` is the HTTP proxy on the way."""

    url: URL
    size: int
    headers: Mapping[str, str] = field(repr=False)
    proxy: URL | None = None
    ranged: bool = True

    @property
    def route(self) -> tuple[URL, URL | None]:
        """What a connection must have in common with another to stand in for it."""
        return self.url.origin(), self.proxy


class Connections:
    """Open connections by where they lead, idle ones for ``idle_s`` and at most ``most``. Any thread.

    Nothing here keeps an eye on the time: who wants them closed in time has to ``tidy``.
    """

    def __init__(
        self,
        *,
        most: int,
        connect_timeout_s: float,
        stall_timeout_s: float,
        tls: ssl.SSLContext,
        now: Callable[[], float] = time.monotonic,
        idle_s: float = IDLE_S,
    ) -> None:
        self._most = most
        self._idle_s = idle_s
        self._connect_timeout_s = connect_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._tls = tls
        self._now = now
        self._idle: list[tuple[float, tuple[URL, URL | None], http.client.HTTPConnection]] = []
        self._lock = threading.Lock()
        self._closed = False

    def reused(self, address: Address) -> http.client.HTTPConnection | None:
        """Take the idle connection that was used last and leads there, if there is one."""
        self.tidy()
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][1] == address.route:
                    return self._idle.pop(index)[2]
        return None

    def keep(self, address: Address, connection: http.client.HTTPConnection) -> None:
        """Put a connection by that waits for its next request."""
        with self._lock:
            self._idle.append((self._now(), address.route, connection))
        self.tidy()

    def close(self) -> None:
        """End the idle ones, and from now on all that become so."""
        self._closed = True
        self.tidy()

    def open(self, address: Address, guard: Guard) -> http.client.HTTPConnection:
        """Connect, through the proxy where there is one. Raises UpstreamUnavailable, ForbiddenAddress."""
        at = address.proxy or address.url
        host, port = at.host or "", at.port or 80
        connection: http.client.HTTPConnection
        if address.url.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=self._connect_timeout_s, context=self._tls)
            if address.proxy is not None:
                target = (address.url.host or "", address.url.port or 443)
                connection.set_tunnel(*target, headers=proxy_headers(address.proxy))
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._connect_timeout_s)
        try:
            connection.connect()
            if address.proxy is None:
                guard.check_peer(host, connection.sock.getpeername()[0])
        except MirrorError:
            connection.close()
            raise
        # ValueError: a name that is none; HTTPException: a proxy that does not speak HTTP.
        except (OSError, ValueError, http.client.HTTPException) as error:
            connection.close()
            raise UpstreamUnavailable(f"{host}:{port}: {str(error) or repr(error)}") from error
        connection.sock.settimeout(self._stall_timeout_s)
        return connection

    def tidy(self) -> bool:
        """Close what is idle for too long or too many; say whether any are left."""
        with self._lock:
            oldest = self._now() - self._idle_s
            fresh = [] if self._closed else [one for one in self._idle if one[0] >= oldest][-self._most :]
            gone = [one for one in self._idle if one not in fresh]
            self._idle = fresh
        for *_, connection in gone:
            connection.close()
        return bool(fresh)


def proxy_headers(proxy: URL) -> dict[str, str]:
    """Return the headers that a proxy with a user and password in its URL wants."""
    if proxy.user is None:
        return {}
    return {"Proxy-Authorization": encode_basic_auth(proxy.user, proxy.password or "")}


def proxy_for(url: URL) -> URL | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for an address."""
    said = getproxies().get(url.scheme)
    if not said or proxy_bypass(url.host or ""):
        return None
    return URL(said if "://" in said else f"http://{said}")
