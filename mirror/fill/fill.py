"""One blob on its way in, and any number of readers who do not wait for the end of it."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, Self

from mirror.errors import MirrorError, RateLimited, StaleAddress, StoreFull, UpstreamError
from mirror.events import BytesFetched, DigestMismatched, Events, FillEnded, FillStarted
from mirror.fill.plan import FillPlan
from mirror.store import Partial
from mirror.threads import in_thread
from mirror.upstream import Address, RangeIgnored, Transfer
from mirror.values import ByteRange, Digest

_RECORD_BYTES = 64 << 20
_HASH_BYTES = 16 << 20
_LINE_BYTES = 4 << 20
_LONGEST_DELAY_S = 30.0
_RECORD_EVERY_S = 0.5


class Source(Protocol):
    """Where a fill's bytes come from: one blob of one upstream."""

    async def locate(self) -> Address:
        """Resolve the blob anew; raises UpstreamError."""

    async def carry(self, address: Address, transfer: Transfer) -> None:
        """Bring in one range by a thread; raises UpstreamError and what the sink raises."""


@dataclass(frozen=True, slots=True)
class FillSettings:
    """How hard a fill tries. Times in seconds."""

    connections: int
    retry_attempts: int
    retry_delay_s: float
    stall_timeout_s: float


class Fill:
    """Brings one blob in over several connections and lets readers read what is there. Of the loop's thread.

    Once ``run`` has ended, either the blob is published (``error`` is None) or ``error`` says why not, and every
    reader has been told. The last byte is withheld until the hash of all is proven, so no reader ever completes
    a wrong blob.
    """

    def __init__(
        self,
        partial: Partial,
        source: Source,
        address: Address | None,
        settings: FillSettings,
        events: Events,
        threads: Executor,
        *,
        allowance: Callable[["Fill"], int],
        published: Callable[[Digest], Awaitable[None]],
    ) -> None:
        self.partial = partial
        self.digest = partial.digest
        self.size = partial.size
        self.error: MirrorError | None = None
        self.fetched = 0
        self.readers = 0
        self.wanted = 0
        self.ended = asyncio.Event()
        self._plan = FillPlan(partial.size, partial.resumed.copy())
        self._source = source
        self._address = address
        self._settings = settings
        self._events = events
        self._threads = threads
        self._allowance = allowance
        self._published = published
        self._proven = False
        self._parked = False
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._waiters: dict[FillReader, tuple[int, asyncio.Future[None]]] = {}
        self._locating = asyncio.Lock()
        self._active: dict[int, _Line] = {}
        self._setbacks = 0
        self._round = 0
        self._resume_at = 0.0
        self._speed: float | None = None

    @property
    def here(self) -> int:
        """How many bytes of the blob are on disk."""
        return self._plan.here.total

    @property
    def urgent(self) -> bool:
        """Whether somebody reads it now, rather than it being fetched ahead."""
        return self.readers > 0

    @property
    def lines(self) -> int:
        """How many connections are at work."""
        return len(self._active)

    def park(self) -> None:
        """Stop fetching and keep what is here for another day; readers are cut off."""
        self._parked = True
        for line in self._active.values():
            line.transfer.stop()
        self.wake()

    def wake(self) -> None:
        """Let idle connections look again for work."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._progress.set()

    def reader(self) -> "FillReader":
        """Join in: use it as a context manager."""
        return FillReader(self)

    async def run(self) -> None:
        """Fetch, prove, publish. Foreseen failures end up in ``error``; cancelling keeps what is here."""
        begun = time.monotonic()
        self._events.publish(FillStarted(self.digest, self.size, self.here))
        count = max(1, min(self._settings.connections, -(-self.size // _LINE_BYTES)))
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(count):
                    group.create_task(self._work(index))
                group.create_task(self._record())
                group.create_task(self._watch())
                await self._prove()
                self._over(None)
        except* MirrorError as errors:
            self._over(_first(errors))
        finally:
            await self._finish()
            error = str(self.error) if self.error else None if self._proven else "parked"
            duration_s = time.monotonic() - begun
            self._events.publish(FillEnded(self.digest, self.size, self.fetched, duration_s, error))

    def available(self, offset: int) -> int:
        """Return up to where a reader at ``offset`` may read now."""
        limit = self.size if self._proven else self.size - 1
        return min(self._plan.here.end_from(offset), max(limit, offset))

    async def readable(self, reader: "FillReader", offset: int) -> int:
        """Wait until the byte at ``offset`` may be read, and return up to where.

        Raises:
            MirrorError: it never will; the fill's own error, or StaleAddress when it was parked.
        """
        while (stop := self.available(offset)) <= offset:
            if self.error is not None:
                raise self.error
            if self.ended.is_set():
                raise StaleAddress(f"the fill of {self.digest.short} was parked")
            self._plan.wait(reader, offset, time.monotonic())
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[reader] = (offset, arrival)
            self.wake()
            try:
                await arrival
            finally:
                self._waiters.pop(reader, None)
                self._plan.served(reader)
        return stop

    async def _work(self, index: int) -> None:
        """One connection: take a range, bring it in, until nothing is left."""
        while not self._ending:
            changed = self._changed
            unit = self._take(index)
            if unit is None:
                await changed.wait()
                continue
            begun_in = self._round
            try:
                await self._bring(index, unit)
            except UpstreamError as error:
                await self._setback(error, begun_in)

    def _take(self, index: int) -> ByteRange | None:
        if index >= self._allowance(self):
            return None
        if self._address is not None and not self._address.ranged:
            return self._plan.take_rest() if index == 0 else None
        return self._plan.take(self._settings.connections, self._speed)

    async def _bring(self, index: int, unit: ByteRange) -> None:
        address: Address | None = None
        try:
            address = await self._where()
            loop = asyncio.get_running_loop()
            line = self._active[index] = _Line(unit, lambda: self.urgent)

            def sink(offset: int, content: bytes) -> None:
                self.partial.write(offset, content)
                loop.call_soon_threadsafe(self._arrived, line, ByteRange(offset, offset + len(content)))

            line.transfer.sink = sink
            await self._source.carry(address, line.transfer)
        except RangeIgnored:
            if address is self._address and address is not None:
                self._address = replace(address, ranged=False)
            raise
        except StaleAddress:
            self._forget(address)
            raise
        finally:
            self._active.pop(index, None)
            self._plan.give_back(unit)
            self.wake()

    async def _where(self) -> Address:
        """The blob's address, asked for once and kept until it is used up."""
        async with self._locating:
            if self._address is None:
                self._address = await self._source.locate()
            return self._address

    def _forget(self, address: Address | None) -> None:
        if address is self._address:
            self._address = None

    def _arrived(self, line: "_Line", span: ByteRange) -> None:
        """Bytes are on disk: tell the plan and whoever waits for them."""
        self._plan.arrived(span)
        self.fetched += len(span)
        self._setbacks = 0
        self._speed = line.moved(len(span))
        self._progress.set()
        self._events.publish(BytesFetched(self.digest, len(span)))
        for offset, arrival in self._waiters.values():
            if not arrival.done() and offset in span and self.available(offset) > offset:
                arrival.set_result(None)

    async def _setback(self, error: UpstreamError, begun_in: int) -> None:
        """A connection failed: the first of a round makes all of them pause, longer each time without a byte."""
        if error.permanent:
            raise error
        if begun_in == self._round:
            self._round += 1
            self._setbacks += 1
            if self._setbacks > self._settings.retry_attempts + 1:
                raise error
            self._resume_at = time.monotonic() + self._delay(error)
        await self._pause(max(0.0, self._resume_at - time.monotonic()))

    def _delay(self, error: UpstreamError) -> float:
        if isinstance(error, RateLimited) and error.retry_after_s is not None:
            return min(error.retry_after_s, _LONGEST_DELAY_S)
        if isinstance(error, (StaleAddress, RangeIgnored)) and self._setbacks == 1:
            return 0.0
        spread = 0.5 + random.random()  # noqa: S311  # not a secret: so that mirrors do not come back in step
        return min(_LONGEST_DELAY_S, self._settings.retry_delay_s * 2.0 ** (self._setbacks - 1)) * spread

    async def _watch(self) -> None:
        """End a connection that brings nothing while a reader waits for its bytes; another takes over.

        Ollama gives a part up after 30 s without a byte, so ours are given up long before the stall time-out.
        """
        patience_s = self._settings.stall_timeout_s / 4
        while not self._ending:
            await self._pause(min(1.0, patience_s))
            now = time.monotonic()
            for line in self._active.values():
                rest = ByteRange(line.transfer.at, line.transfer.span.stop)
                if now - line.last > patience_s * 2 ** min(self._setbacks, 2) and self._plan.waited_for(rest):
                    line.transfer.stop()
                    self._setbacks += 1

    async def _prove(self) -> None:
        """Hash along the contiguous front; at the end publish, then let the last byte go."""
        while self.partial.hashed < self.size:
            self._progress.clear()
            front = min(self._plan.front, self.partial.hashed + _HASH_BYTES)
            if front > self.partial.hashed:
                await self._in_thread(lambda: self.partial.advance(front))  # noqa: B023  # awaited at once
            elif self._parked:
                return
            else:
                await self._progress.wait()
        try:
            await self._in_thread(self.partial.publish)
        except MirrorError:
            self._events.publish(DigestMismatched(self.digest))
            raise
        await self._published(self.digest)
        self._proven = True

    async def _record(self) -> None:
        """Write down what is here, every 64 MiB of it."""
        recorded = self.here
        while not self._ending:
            if self.here - recorded >= _RECORD_BYTES:
                recorded, snapshot = self.here, self._plan.here.copy()
                await self._in_thread(lambda: self.partial.record(snapshot))  # noqa: B023  # awaited at once
            else:
                await self._pause(_RECORD_EVERY_S)

    async def _pause(self, seconds: float) -> None:
        """Wait for so long, or until the fill is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ended.wait()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await in_thread(self._threads, work)

    @property
    def _ending(self) -> bool:
        return self._parked or self._proven or self.error is not None

    def _over(self, error: MirrorError | None) -> None:
        self.error = error
        self.wake()
        self.ended.set()

    async def _finish(self) -> None:
        """Leave the disk right whatever ended the fill, and tell those who wait."""
        self.ended.set()
        for _, arrival in self._waiters.values():
            if not arrival.done():
                arrival.set_result(None)
        try:
            if self.error is not None and not isinstance(self.error, UpstreamError):
                self.partial.drop()
            elif not self._proven:
                with suppress(StoreFull):
                    await self._in_thread(lambda: self.partial.record(self._plan.here))
        finally:
            self.partial.close()


class FillReader:
    """One reader of a fill, with a descriptor of its own: the bytes stay readable when the fill has ended."""

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self.fd = os.dup(fill.partial.fd)
        fill.readers += 1
        fill.wanted += 1

    async def readable(self, offset: int) -> int:
        """Wait for the byte at ``offset``; return up to where may be read. Raises as Fill.readable does."""
        return await self._fill.readable(self, offset)

    def close(self) -> None:
        """Leave; the fill goes on or not as its settings say."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._fill.readers -= 1
            self._fill.wanted -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Line:
    """A connection at work: its transfer, and how fast it is."""

    def __init__(self, unit: ByteRange, urgent: Callable[[], bool]) -> None:
        self.transfer = Transfer(unit, lambda _offset, _content: None, urgent=urgent)
        self.begun = self.last = time.monotonic()
        self._bytes = 0

    def moved(self, count: int) -> float | None:
        """Note bytes that came; return bytes per second so far, None while it is too early to say."""
        self._bytes += count
        self.last = time.monotonic()
        elapsed = self.last - self.begun
        return self._bytes / elapsed if elapsed > 0.05 else None


def _first(errors: BaseExceptionGroup[MirrorError]) -> MirrorError:
    """The first error of a group, however deep."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
