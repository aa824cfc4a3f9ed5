"""A clock on which a night passes in a moment, and a queue with a worker that goes by it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from mirror.app import RunningMirror
from mirror.db import open_database
from mirror.pulls import Queue, Worker
from mirror.values import ModelName
from mirror.values.window import Schedule, parse_window
from tests.support import SOON_S

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class NightClock:
    """A clock that is moved by hand; who waits for a time is woken when it has come."""

    def __init__(self) -> None:
        self._now = NOON
        self._moved = asyncio.Event()

    def now(self) -> datetime:
        """What it shows."""
        return self._now

    async def until(self, instant: datetime | None) -> None:
        """Wait until it shows that."""
        while instant is None or self._now < instant:
            self._moved.clear()
            await self._moved.wait()

    def move(self, **how: float) -> None:
        """Let time pass."""
        self._now += timedelta(**how)
        self._moved.set()


@dataclass(frozen=True, slots=True)
class Night:
    """A queue and its worker, which works from 22:00 to 06:00 UTC."""

    clock: NightClock
    queue: Queue
    worker: Worker

    async def want(self, text: str, who: str = "somebody", *, at_once: bool = False) -> None:
        """Ask for a model."""
        await self.queue.ask(ModelName.parse(text), who, at_once=at_once)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, looked at in every turn of the loop."""
        async with asyncio.timeout(SOON_S):
            while not holds():  # noqa: ASYNC110  # fills and the queue change by turns of the loop
                await asyncio.sleep(0)

    async def a_day(self) -> None:
        """Let a day pass, and the worker see each of its edges."""
        for hours in (8, 16):
            self.clock.move(hours=hours)
            for _ in range(10):
                await asyncio.sleep(0)

    async def over(self, text: str) -> str:
        """Wait until a model's job is over; return how it ended."""
        name = ModelName.parse(text)
        await self.until(lambda: self.queue.of(name) is None)
        return next(job.state.value for job in await self.queue.history(100) if job.name == name)


@asynccontextmanager
async def night(
    folder: Path, mirror: RunningMirror, *, most: int = 3, tries: int = 3, keep: tuple[str, ...] = ()
) -> AsyncIterator[Night]:
    """Work while the block runs; the queue is the one that an earlier block left in ``folder``."""
    engine = await open_database(None, folder / "queue.db")
    clock = NightClock()
    schedule = Schedule((parse_window("22:00-06:00"),), ZoneInfo("UTC"))
    try:
        queue = Queue(engine, 100, clock.now)
        await queue.load()
        worker = Worker(
            queue,
            mirror.parts.puller.pull,
            schedule,
            clock,
            most=most,
            tries=tries,
            retry_delay_s=60,
            kept_fresh=lambda: map(ModelName.parse, keep),
        )
        async with asyncio.TaskGroup() as group:
            working = group.create_task(worker.run())
            try:
                yield Night(clock, queue, worker)
            finally:
                working.cancel()
    finally:
        await engine.dispose()
