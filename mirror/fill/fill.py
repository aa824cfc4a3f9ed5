"""One blob on its way in, and any number of readers who do not wait for the end of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace

import structlog

from mirror.errors import DigestMismatch, FillBroken, MirrorError, StaleAddress, StoreFull, UpstreamError
from mirror.events import BytesFetched, DigestMismatched, Events, FillEnded, FillStarted
from mirror.fill.groups import first_of
from mirror.fill.line import Line
from mirror.fill.plan import FillPlan
from mirror.fill.reader import FillReader, Waiters
from mirror.fill.setbacks import Setbacks
from mirror.fill.source import FillSettings, Source
from mirror.store import Partial
from mirror.threads import in_thread
from mirror.upstream import Address, RangeIgnored
from mirror.values import ByteRange, Digest

log = structlog.get_logger(__name__)

_RECORD_BYTES, _HASH_BYTES = 64 << 20, 16 << 20
_LINE_BYTES = 4 << 20
_RECORD_EVERY_S = 0.5


class Fill:
    """Brings one blob in over several connections and lets readers read what is there. Of the loop's thread.

    Once ``ended`` is set, either the blob is published (``error`` is None), or ``error`` says why not, or it was
    parked; every reader has been told and nothing is written any more. The last byte is withheld until the hash
    of all is proven, so no reader ever completes a wrong blob.
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
        self.begun_at = time.monotonic()
        self._plan = FillPlan(partial.size, partial.resumed.copy())
        self._source = source
        self._address = address
        self._fruitful: Address | None = None
        self._ignored = False
        self._settings = settings
        self._most_lines = max(1, min(settings.connections, -(-partial.size // _LINE_BYTES)))
        self._events = events
        self._threads = threads
        self._allowance = allowance
        self._published = published
        self._proven = False
        self._parked = False
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._waiters = Waiters()
        self._locating = asyncio.Lock()
        self._active: dict[int, Line] = {}
        self._speed: float | None = None
        self._setbacks = Setbacks(settings.retry_attempts, settings.retry_delay_s)

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

    @property
    def ending(self) -> bool:
        """Whether it is as good as over, so that nobody should join any more: wait for ``ended``."""
        return self._parked or self._proven or self.error is not None

    def park(self) -> None:
        """Stop fetching and keep what is here for another day; readers are cut off."""
        self._parked = True
        self.wake()

    def wake(self) -> None:
        """Let idle connections look again for work."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._progress.set()

    def reader(self) -> FillReader:
        """Join in: use it as a context manager."""
        return FillReader(self)

    async def run(self) -> None:
        """Fetch, prove, publish. Foreseen failures end up in ``error``; cancelling keeps what is here."""
        begun = time.monotonic()
        self._events.publish(FillStarted(self.digest, self.size, self.here))
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._work(index)) for index in range(self._most_lines)]
                helpers.append(group.create_task(self._watch()))
                recording = group.create_task(self._record())
                await self._hash()
                recording.cancel()
                await asyncio.wait([recording])
                if not self._parked:
                    await self._publish()
                for helper in helpers:
                    helper.cancel()
        except* MirrorError as errors:
            self.error = None if self._proven else first_of(errors)
        except* Exception as errors:  # a bug that one blob brings out must not end the service of all others
            log.exception("fill broken", digest=str(self.digest), exc_info=first_of(errors))
            self.error = None if self._proven else FillBroken(f"the fill of {self.digest.short} broke; see the log")
        finally:
            await self._finish()
            error = str(self.error) if self.error else None if self._proven else "parked"
            duration_s = time.monotonic() - begun
            self._events.publish(FillEnded(self.digest, self.size, self.fetched, duration_s, error))
            self.ended.set()

    def available(self, offset: int) -> int:
        """Return up to where a reader at ``offset`` may read now."""
        limit = self.size if self._proven else self.size - 1
        return min(self._plan.here.end_from(offset), max(limit, offset))

    async def readable(self, reader: FillReader, offset: int) -> int:
        """Wait until the byte at ``offset`` may be read, and return up to where.

        For ``offset`` at the blob's end it returns once all of it is proven.

        Raises:
            MirrorError: it never will; the fill's own error, or StaleAddress when it was parked.
        """
        while (stop := self.available(offset)) <= offset and not (self._proven and offset == self.size):
            if self.error is not None:
                raise self.error
            if self._parked:
                raise StaleAddress(f"the fill of {self.digest.short} was parked")
            self._plan.wait(reader, offset, time.monotonic())
            self.wake()
            try:
                await self._waiters.wait(reader, offset)
            finally:
                self._plan.served(reader)
        return stop

    async def _work(self, index: int) -> None:
        """One connection: take a range, bring it in, over and over."""
        while True:
            changed = self._changed
            await asyncio.sleep(max(0.0, self._setbacks.resume_at - time.monotonic()))
            began_in = self._setbacks.round
            address: Address | None = None
            try:
                if index < self._allowance(self) and self._plan.open:
                    address = await self._where(began_in)
                unit = self._take(index, address) if address else None
                if address is None or unit is None:
                    await changed.wait()
                    continue
                await self._bring(index, address, unit)
            except UpstreamError as error:
                # An address that brought bytes has expired; one that never did may be refused again and again.
                expired = isinstance(error, StaleAddress) and address is not None and address is self._fruitful
                self._setbacks.add(error, began_in, time.monotonic(), at_once=expired)
                self.wake()

    async def _where(self, began_in: int) -> Address | None:
        """The blob's address, asked for once and kept until it is used up; None where another has failed to get it."""
        async with self._locating:
            if self._address is None and self._setbacks.round == began_in:
                self._address = await self._source.locate()
                self.wake()
            return self._address

    def _take(self, index: int, address: Address) -> ByteRange | None:
        if index >= self._allowance(self):
            return None
        if not address.ranged:
            return self._plan.take_rest() if index == 0 else None
        return self._plan.take(self._settings.connections, self._speed)

    async def _bring(self, index: int, address: Address, unit: ByteRange) -> None:
        loop = asyncio.get_running_loop()
        line = self._active[index] = Line(unit, address, lambda: self.urgent)

        def sink(offset: int, content: memoryview) -> None:
            self.partial.write(offset, content)
            loop.call_soon_threadsafe(self._arrived, line, ByteRange(offset, offset + len(content)))

        line.transfer.sink = sink
        try:
            await self._source.carry(address, line.transfer)
        except (RangeIgnored, StaleAddress) as error:
            if address is self._address:
                again = isinstance(error, RangeIgnored) and self._ignored
                self._address = replace(address, ranged=False) if again else None
                self._ignored = isinstance(error, RangeIgnored)
            raise
        finally:
            self._active.pop(index, None)
            self._plan.give_back(line.transfer.span)
            self.wake()

    def _arrived(self, line: Line, span: ByteRange) -> None:
        """Bytes are on disk: tell the plan and whoever waits for them."""
        self._plan.arrived(span)
        self.fetched += len(span)
        self._fruitful = line.address
        self._ignored = False
        self._setbacks.overcome()
        self._speed = line.moved(len(span)) or self._speed
        self._progress.set()
        self._events.publish(BytesFetched(self.digest, len(span)))
        self._waiters.tell(lambda offset: offset in span and self.available(offset) > offset)

    async def _watch(self) -> None:
        """See to it that nobody waits long for a byte that is another connection's to bring.

        Ollama gives a part up after 30 s without a byte, so a silent connection is ended long before the stall
        time-out; and where a slow one has far to go to what a reader waits for, another begins there.
        """
        patience_s = self._settings.stall_timeout_s / 4
        while True:
            await asyncio.sleep(min(1.0, patience_s))
            now, patient_s = time.monotonic(), patience_s * 2 ** min(self._setbacks.in_a_row, 2)
            for line in self._active.values():
                waiting = self._plan.waited_for(line.rest)
                if not waiting:
                    continue
                if line.transfer.held_up:
                    line.last = now
                elif now - line.last > patient_s:
                    line.transfer.stop()
                    self._setbacks.in_a_row += 1
                late = next((offset for offset in waiting if line.late_for(offset, patience_s)), None)
                if late is not None and len(self._active) == self._most_lines:
                    line.transfer.stop()  # nobody is free: it begins anew, where it is waited for longest
                elif late is not None and (rest := line.transfer.shorten(late)):
                    self._plan.give_back(rest)
                    self.wake()

    async def _hash(self) -> None:
        """Hash along the contiguous front, to the end or until parked."""
        while self.partial.hashed < self.size and not self._parked:
            self._progress.clear()
            front = min(self._plan.front, self.partial.hashed + _HASH_BYTES)
            if front > self.partial.hashed:
                await in_thread(self._threads, lambda: self.partial.advance(front))  # noqa: B023  # awaited at once
            else:
                await self._progress.wait()

    async def _publish(self) -> None:
        """Give the blob its name, if it is what that says, and let the last byte go."""
        try:
            await in_thread(self._threads, self.partial.publish)
        except DigestMismatch:
            self._events.publish(DigestMismatched(self.digest))
            raise
        await self._published(self.digest)
        self._proven = True
        self._waiters.tell()

    async def _record(self) -> None:
        """Write down what is here, every 64 MiB of it."""
        recorded = self.here
        while True:
            await asyncio.sleep(_RECORD_EVERY_S)
            if self.here - recorded >= _RECORD_BYTES:
                recorded, snapshot = self.here, self._plan.here.copy()
                await in_thread(self._threads, lambda: self.partial.record(snapshot))  # noqa: B023  # awaited at once

    async def _finish(self) -> None:
        """Leave the disk right whatever ended the fill, and tell those who wait."""
        self._parked = self._parked or not self.ending
        self._waiters.tell()
        try:
            if not self.here or not isinstance(self.error, UpstreamError | None):
                self.partial.drop()
            elif not self._proven:
                with suppress(StoreFull):
                    await in_thread(self._threads, lambda: self.partial.record(self._plan.here))
        finally:
            self.partial.close()
