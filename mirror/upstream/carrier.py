"""Bulk bytes, carried by threads: the loop decides which range, a thread moves it from socket to disk.

Measured on plain HTTP this costs half the processor time of the same bytes passing through the event loop
(docs/decisions/0002-threads-carry-bytes.md).
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import encode_basic_auth
from yarl import URL

from mirror.errors import MirrorError, UpstreamError, UpstreamMisbehaved, UpstreamUnavailable
from mirror.threads import in_thread
from mirror.upstream.addresses import Guard
from mirror.upstream.answers import refusal
from mirror.upstream.budget import Budget
from mirror.values import ByteRange, InvalidRange
from mirror.values.http_range import parse_content_range, range_header

_READ_BYTES = 256 << 10

Sink = Callable[[int, bytes], None]
"""Called in a thread with (offset, bytes), in rising order."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a blob's bytes are read: the answer to one resolution. ``proxy`` is the HTTP proxy on the way."""

    url: URL
    size: int
    headers: Mapping[str, str] = field(repr=False)
    proxy: URL | None = None
    signed: bool = False
    ranged: bool = True


class Transfer:
    """One range on its way in. The loop may shorten it, stop it and change how urgent it is while it runs."""

    def __init__(self, span: ByteRange, sink: Sink, *, urgent: Callable[[], bool]) -> None:
        self.span = span
        self.at = span.start
        self.sink = sink
        self.urgent = urgent
        self.stopped = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def hold(self, connection: socket.socket | None) -> None:
        """Say which socket carries it now, so that ``stop`` can end a thread that waits on it."""
        with self._lock:
            self._socket = connection
            if self.stopped and connection is not None:
                _shut(connection)

    def stop(self) -> None:
        """End it soon, wherever it is: waiting for a byte, for the budget, or at work."""
        with self._lock:
            self.stopped = True
            if self._socket is not None:
                _shut(self._socket)


class Carrier:
    """A bounded set of threads, and the idle connections they use again."""

    def __init__(
        self, *, threads: int, connect_timeout_s: float, stall_timeout_s: float, budget: Budget, tls: ssl.SSLContext
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="carrier")
        self._connect_timeout_s = connect_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._budget = budget
        self._tls = tls
        self._idle: dict[tuple[URL, URL | None], list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    async def carry(self, address: Address, transfer: Transfer, guard: Guard) -> None:
        """Bring in the range, or as much of it as comes; ``transfer.at`` tells how far it got.

        Cancelling it stops the thread and waits until it has let go, so that nothing writes afterwards.

        Raises:
            StaleAddress, RateLimited, UpstreamUnavailable, UpstreamMisbehaved and the other UpstreamErrors;
            whatever the sink raises.
        """
        try:
            await in_thread(self._threads, lambda: self._carry(address, transfer, guard), transfer.stop)
        finally:
            transfer.stop()

    def close(self) -> None:
        """End the idle connections and let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _carry(self, address: Address, transfer: Transfer, guard: Guard) -> None:
        connection = self._reused(address)
        if connection is not None:
            transfer.hold(connection.sock)
            try:
                if self._exchange(connection, address, transfer):
                    return
            finally:
                transfer.hold(None)
        if transfer.stopped:
            return
        connection = self._connect(address, guard)
        transfer.hold(connection.sock)
        try:
            self._exchange(connection, address, transfer, fresh=True)
        finally:
            transfer.hold(None)

    def _exchange(
        self, connection: http.client.HTTPConnection, address: Address, transfer: Transfer, *, fresh: bool = False
    ) -> bool:
        """Ask and carry; False when a reused connection turned out to be dead before it answered."""
        reusable = False
        what = f"{address.url.host}: bytes {transfer.at} to {transfer.span.stop}"
        try:
            try:
                response = self._ask(connection, address, ByteRange(transfer.at, transfer.span.stop))
            except (ConnectionError, http.client.RemoteDisconnected):
                if fresh:
                    raise
                return False
            self._check(response, address, transfer, what)
            reusable = self._drain(response, transfer, what) and not response.will_close
        except TimeoutError as error:
            raise UpstreamUnavailable(f"{what}: no byte for {self._stall_timeout_s:g} s") from error
        except http.client.HTTPException as error:
            raise UpstreamMisbehaved(f"{what}: {error!r}") from error
        except (OSError, ValueError) as error:  # ValueError: the socket was closed under http.client by stop()
            if transfer.stopped:
                return True
            raise UpstreamUnavailable(f"{what}: {error}") from error
        finally:
            if reusable and not transfer.stopped:
                self._keep(address, connection)
            else:
                connection.close()
        return True

    def _ask(
        self, connection: http.client.HTTPConnection, address: Address, span: ByteRange
    ) -> http.client.HTTPResponse:
        plain_proxy = address.proxy is not None and address.url.scheme == "http"
        target = str(address.url) if plain_proxy else address.url.raw_path_qs
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", address.url.authority)
        for name, value in address.headers.items():
            connection.putheader(name, value)
        if plain_proxy and address.proxy is not None:
            for name, value in _proxy_headers(address.proxy).items():
                connection.putheader(name, value)
        connection.putheader("Accept-Encoding", "identity")
        if address.ranged:
            connection.putheader("Range", range_header(span))
        connection.endheaders()
        return connection.getresponse()

    def _check(self, response: http.client.HTTPResponse, address: Address, transfer: Transfer, what: str) -> None:
        """Raise unless the body that follows is ours; skip to our first byte where the whole blob is sent."""
        if response.status == 206:
            try:
                got, size = parse_content_range(response.headers.get("Content-Range", ""))
            except InvalidRange as error:
                raise UpstreamMisbehaved(f"{what}: {error}") from error
            if got.start != transfer.at or got.stop > transfer.span.stop or size not in (None, address.size):
                raise UpstreamMisbehaved(f"{what}: got the range {got.start} to {got.stop} of {size}")
            if response.length is not None and response.length != len(got):
                raise UpstreamMisbehaved(f"{what}: {response.length} bytes announced for a range of {len(got)}")
        elif response.status == 200:
            if response.length not in (None, address.size):
                raise UpstreamMisbehaved(f"{what}: the whole blob has {response.length} bytes, not {address.size}")
            if address.ranged:
                raise RangeIgnored(f"{what}: the whole blob was sent where a range was asked")
            self._skip(response, transfer, what)
        else:
            raise refusal(response.status, dict(response.headers), what, signed=address.signed, now=time.time())

    def _skip(self, response: http.client.HTTPResponse, transfer: Transfer, what: str) -> None:
        left = transfer.at
        while left and not transfer.stopped:
            count = len(response.read(min(left, _READ_BYTES)))
            if count == 0:
                raise UpstreamUnavailable(f"{what}: the body ended early")
            left -= count

    def _drain(self, response: http.client.HTTPResponse, transfer: Transfer, what: str) -> bool:
        """Move the body to the sink; True when it was taken to its end, so that the connection can go on."""
        while transfer.at < transfer.span.stop and not transfer.stopped:
            content = response.read1(min(_READ_BYTES, transfer.span.stop - transfer.at))
            if not content:
                if transfer.stopped:
                    return False
                raise UpstreamUnavailable(f"{what}: the body ended at {transfer.at}")
            if not self._budget.unlimited:
                self._budget.spend(len(content), urgent=transfer.urgent, stop=lambda: transfer.stopped)
            transfer.sink(transfer.at, content)
            transfer.at += len(content)
        if transfer.stopped or response.length != 0:
            return False
        response.read()  # nothing is left; http.client needs to be told before it asks again
        return True

    def _reused(self, address: Address) -> http.client.HTTPConnection | None:
        with self._lock:
            idle = self._idle.get((address.url.origin(), address.proxy))
            return idle.pop() if idle else None

    def _keep(self, address: Address, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.setdefault((address.url.origin(), address.proxy), []).append(connection)

    def _connect(self, address: Address, guard: Guard) -> http.client.HTTPConnection:
        at = address.proxy or address.url
        host, port = at.host or "", at.port or 80
        connection: http.client.HTTPConnection
        if address.url.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=self._connect_timeout_s, context=self._tls)
            if address.proxy is not None:
                target = (address.url.host or "", address.url.port or 443)
                connection.set_tunnel(*target, headers=_proxy_headers(address.proxy))
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._connect_timeout_s)
        try:
            connection.connect()
            if address.proxy is None:
                guard.check_peer(connection.sock.getpeername()[0])
        except MirrorError:
            connection.close()
            raise
        except OSError as error:
            connection.close()
            raise UpstreamUnavailable(f"{host}:{port}: {error}") from error
        connection.sock.settimeout(self._stall_timeout_s)
        return connection


class RangeIgnored(UpstreamError):
    """The upstream sends the whole blob whatever range is asked: read it from the start, once."""

    permanent = False


def _proxy_headers(proxy: URL) -> dict[str, str]:
    if proxy.user is None:
        return {}
    return {"Proxy-Authorization": encode_basic_auth(proxy.user, proxy.password or "")}


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
