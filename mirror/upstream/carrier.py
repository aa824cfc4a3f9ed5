"""Bulk bytes, carried by threads: the loop decides which range, a thread moves it from socket to disk.

Measured on plain HTTP this costs half the processor time of the same bytes passing through the event loop
(docs/decisions/0001-threads-carry-bytes.md).
"""

import asyncio
import http.client
import os
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from mirror.errors import UpstreamError, UpstreamMisbehaved, UpstreamUnavailable
from mirror.threads import in_thread
from mirror.upstream.addresses import Guard
from mirror.upstream.answers import refusal
from mirror.upstream.budget import Budget
from mirror.upstream.connections import IDLE_S, Address, Connections, proxy_headers
from mirror.upstream.transfer import Transfer
from mirror.values import ByteRange, InvalidRange
from mirror.values.http_range import parse_content_range, range_header

_READ_BYTES = 256 << 10
"""What a thread claims before it waits, and so cannot be relieved of, which holds up readers of a slow connection."""
_GATHERED_BYTES = 1 << 20
"""What it passes on at once where more bytes are there already: each piece has its price, and TLS gives out 16 KiB."""
_GATHERING = max(2, min(4, os.cpu_count() or 2))
"""How many threads gather at once: more of them have the interpreter change hands with every record of TLS."""
_TIMES = 3
"""How often connections are looked at in the time for which they are kept, so that they end soon after it."""


class Carrier:
    """A bounded set of threads, and the idle connections they use again."""

    def __init__(
        self,
        *,
        threads: int,
        connect_timeout_s: float,
        stall_timeout_s: float,
        budget: Budget,
        ahead: Budget,
        tls: ssl.SSLContext,
        idle_s: float = IDLE_S,
    ) -> None:
        """``budget`` is for everything, ``ahead`` besides for transfers while they are not urgent.

        Connections that nobody has used for ``idle_s`` are closed soon after.
        """
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="carrier")
        self._most = threads
        self._at_work: set[Transfer] = set()
        self._in_line: set[Transfer] = set()
        self._own = threading.local()
        self._gathering = threading.Semaphore(_GATHERING)
        self._stall_timeout_s = stall_timeout_s
        self._budget = budget
        self._ahead = ahead
        self._connections = Connections(
            most=threads, connect_timeout_s=connect_timeout_s, stall_timeout_s=stall_timeout_s, tls=tls, idle_s=idle_s
        )
        self._idle_s = idle_s
        self._tidying: asyncio.TimerHandle | None = None

    async def carry(self, address: Address, transfer: Transfer, guard: Guard) -> None:
        """Bring in the range, or as much of it as comes; ``transfer.at`` tells how far it got.

        Cancelling it stops the thread and waits until it has let go, so that nothing writes afterwards.

        Raises:
            StaleAddress, RateLimited, UpstreamUnavailable, UpstreamMisbehaved and the other UpstreamErrors;
            whatever the sink raises.
        """
        self._in_line.add(transfer)
        try:
            await in_thread(self._threads, lambda: self._carry(address, transfer, guard), transfer.stop)
        finally:
            self._in_line.discard(transfer)
            transfer.stop()
            self._tidy_in_time()

    def close(self) -> None:
        """End the idle connections and let the threads go."""
        if self._tidying is not None:
            self._tidying.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._connections.close()

    def _tidy_in_time(self) -> None:
        """See to it that the last connections are closed too: no transfer comes after them that would."""
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(self._idle_s / _TIMES, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        if self._connections.tidy():
            self._tidy_in_time()

    def _carry(self, address: Address, transfer: Transfer, guard: Guard) -> None:
        self._in_line.discard(transfer)
        self._at_work.add(transfer)
        try:
            self._connect_and_carry(address, transfer, guard)
        finally:
            self._at_work.discard(transfer)

    def _connect_and_carry(self, address: Address, transfer: Transfer, guard: Guard) -> None:
        transfer.held_up = False
        connection = self._connections.reused(address)
        if connection is not None:
            transfer.hold(connection.sock)
            try:
                if self._exchange(connection, address, transfer):
                    return
            finally:
                transfer.hold(None)
        if transfer.stopped:
            return
        connection = self._connections.open(address, guard)
        transfer.hold(connection.sock)
        try:
            self._exchange(connection, address, transfer, fresh=True)
        finally:
            transfer.hold(None)

    def _exchange(
        self, connection: http.client.HTTPConnection, address: Address, transfer: Transfer, *, fresh: bool = False
    ) -> bool:
        """Ask and carry; False when a reused connection turned out to be dead before it answered."""
        reusable, source = False, connection.sock  # an answer that ends with its connection takes it away
        span = ByteRange(transfer.at, transfer.span.stop)
        what = f"{address.url.host}: bytes {span.start} to {span.stop}"
        try:
            try:
                response = self._ask(connection, address, span)
            except (ConnectionError, ssl.SSLError):
                if fresh:
                    raise
                return False
            self._check(response, address, span, what)
            if response.status == 200:
                self._skip(response, transfer, what)
            reusable = self._drain(response, source, transfer, what) and not response.will_close
        except TimeoutError as error:
            raise UpstreamUnavailable(f"{what}: no byte for {self._stall_timeout_s:g} s") from error
        except http.client.HTTPException as error:
            if transfer.stopped:
                return True
            raise UpstreamMisbehaved(f"{what}: {error!r}") from error
        except (OSError, ValueError) as error:  # ValueError: an address that cannot be asked for
            if transfer.stopped:
                return True
            raise UpstreamUnavailable(f"{what}: {error}") from error
        finally:
            if reusable and not transfer.stopped:
                self._connections.keep(address, connection)
            else:
                connection.close()
        return True

    def _ask(
        self, connection: http.client.HTTPConnection, address: Address, span: ByteRange
    ) -> http.client.HTTPResponse:
        plain_proxy = address.proxy if address.url.scheme == "http" else None
        target = str(address.url) if plain_proxy else address.url.raw_path_qs
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", address.url.host_port_subcomponent or "")
        for name, value in {**address.headers, **(proxy_headers(plain_proxy) if plain_proxy else {})}.items():
            connection.putheader(name, value)
        connection.putheader("Accept-Encoding", "identity")
        if address.ranged:
            connection.putheader("Range", range_header(span))
        connection.endheaders()
        return connection.getresponse()

    def _check(self, response: http.client.HTTPResponse, address: Address, span: ByteRange, what: str) -> None:
        """Raise unless the body that follows is ours, from its first byte (206) or the blob's (200)."""
        if response.status == 206:
            try:
                got, size = parse_content_range(response.headers.get("Content-Range", ""))
            except InvalidRange as error:
                raise UpstreamMisbehaved(f"{what}: {error}") from error
            if got.start != span.start or got.stop > span.stop or size not in (None, address.size):
                raise UpstreamMisbehaved(f"{what}: got the range {got.start} to {got.stop} of {size}")
            if response.length is not None and response.length != len(got):
                raise UpstreamMisbehaved(f"{what}: {response.length} bytes announced for a range of {len(got)}")
        elif response.status == 200:
            if response.length not in (None, address.size):
                raise UpstreamMisbehaved(f"{what}: the whole blob has {response.length} bytes, not {address.size}")
            if address.ranged and len(span) < address.size:
                raise RangeIgnored(f"{what}: the whole blob was sent where a range was asked")
        else:
            raise refusal(response.status, dict(response.headers), what, located=True, now=time.time())

    def _skip(self, response: http.client.HTTPResponse, transfer: Transfer, what: str) -> None:
        """Pass over what comes before our first byte; it has its price all the same."""
        left = transfer.at
        while left and not transfer.stopped:
            count = len(response.read1(min(left, self._piece(transfer))))
            if count == 0:
                raise UpstreamUnavailable(f"{what}: the body ended early")
            self._pay(transfer, count)
            left -= count

    def _drain(self, response: http.client.HTTPResponse, source: socket.socket, transfer: Transfer, what: str) -> bool:
        """Move the body to the sink; True when it was taken to its end, so that the connection can go on."""
        buffer, count = self._buffer(), 0
        while transfer.claim(self._piece(transfer)):
            # What came with the head is in the response's own buffer, and must not wait for what comes after it.
            count = (self._gather if count else self._take)(response, source, transfer, buffer)
            if not count:
                if transfer.stopped:
                    return False
                raise UpstreamUnavailable(f"{what}: the body ended at {transfer.at}")
            self._pay(transfer, count)
            transfer.sink(transfer.at, buffer[:count])
            transfer.at += count
        if transfer.stopped or response.length != 0:
            return False
        response.read()  # nothing is left; http.client needs to be told before it asks again
        return True

    def _take(
        self, response: http.client.HTTPResponse, _: socket.socket, transfer: Transfer, buffer: memoryview
    ) -> int:
        """Wait for bytes and put those that are there at once into ``buffer``; return how many, 0 at the body's end."""
        content = response.read1(transfer.claim(self._piece(transfer)))
        buffer[: len(content)] = content
        return len(content)

    def _gather(
        self, response: http.client.HTTPResponse, source: socket.socket, transfer: Transfer, buffer: memoryview
    ) -> int:
        """Do the same, and go on while more are there."""
        most = self._piece(transfer)
        if most < _READ_BYTES or response.chunked or response.length is None:
            return self._take(response, source, transfer, buffer)  # what has a price is paid for in small pieces
        have = _read_into(response, buffer[: transfer.claim(most)])
        if not have:
            return 0
        patience = source.gettimeout()
        with self._gathering:
            source.settimeout(0)  # nobody waits for the network in here, nor for the other half of a TLS record
            try:
                with suppress(OSError):  # no more is there; the next read meets what else it is
                    while got := _read_into(response, buffer[have : transfer.claim(len(buffer), have)]):
                        have += got
            finally:
                source.settimeout(patience)
        return have

    def _buffer(self) -> memoryview:
        """Return this thread's own, which what is passed on lies in until the sink returns."""
        if not hasattr(self._own, "buffer"):
            self._own.buffer = memoryview(bytearray(_GATHERED_BYTES))
        found: memoryview = self._own.buffer
        return found

    def _piece(self, transfer: Transfer) -> int:
        """How many bytes to read at once."""
        own = self._budget.piece or _READ_BYTES
        return min(own, _READ_BYTES, (None if transfer.urgent() else self._ahead.piece) or _READ_BYTES)

    def _pay(self, transfer: Transfer, count: int) -> None:
        """Wait until the bytes may be used; who begins to read them meanwhile is not kept waiting by ``ahead``.

        Where every thread is taken and an urgent transfer waits for one, one that is not urgent is ended instead.
        """

        def given_up() -> bool:
            return transfer.stopped or (self._crowded and not transfer.urgent())

        transfer.held_up = not (self._budget.unlimited and self._ahead.unlimited)
        if not transfer.urgent():
            self._ahead.spend(count, urgent=lambda: False, stop=lambda: given_up() or transfer.urgent())
        self._budget.spend(count, urgent=transfer.urgent, stop=given_up)
        if transfer.held_up and given_up():
            transfer.stop()
        transfer.held_up = False

    @property
    def _crowded(self) -> bool:
        return len(self._at_work) >= self._most and any(one.urgent() for one in self._in_line.copy())


class RangeIgnored(UpstreamError):
    """The upstream sends the whole blob whatever range is asked: read it from the start, once."""

    permanent = False


def _read_into(response: http.client.HTTPResponse, buffer: memoryview) -> int:
    """Do what ``response.read1`` does, without an object for the bytes, where the response's own buffer is empty."""
    count: int = response.fp.readinto1(buffer[: response.length]) or 0
    response.length = (response.length or 0) - count
    return count
