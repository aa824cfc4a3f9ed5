"""Does the jobs of the queue: in windows, or at once for those that say so; a few at the same time."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from mirror.access.seals import LOCAL
from mirror.errors import MirrorError, NoSuchJob, NotAllowed, NotDelivered, QueueError, QueueUnusable, StoreFull
from mirror.fill import PullProgress
from mirror.pulls.clock import Clock, until_or
from mirror.pulls.delivery import Deliveries
from mirror.pulls.job import Job, State
from mirror.pulls.queue import Queue
from mirror.values import ModelName
from mirror.values.window import Schedule

log = structlog.get_logger(__name__)

FRESH = "pulls.keep"
"""Who asks for the models that are kept fresh."""
_AFTER_PEOPLE = -1
_A_DAY = timedelta(days=1)
_NO_ROOM = timedelta(hours=1)
_UNUSABLE_S = 5.0
_MOST_PROGRESS = 200


class Fetch(Protocol):
    """What brings a model into the store; see ``Puller.pull``."""

    def __call__(
        self, name: ModelName, report: Callable[[PullProgress], None], user: str, *, parks: bool
    ) -> Awaitable[PullProgress]:
        """Fetch it. With ``parks`` its fills stop where they are when it is cancelled."""


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    parked: bool = False


class Worker:
    """Begins jobs and sees to their ends. For the event loop's thread; ``run`` it once."""

    def __init__(
        self,
        queue: Queue,
        fetch: Fetch,
        schedule: Schedule,
        clock: Clock,
        *,
        most: int,
        tries: int,
        retry_delay_s: float,
        kept_fresh: Callable[[], Iterable[ModelName]] = tuple,
        room: Callable[[], None] = lambda: None,
        deliveries: Deliveries | None = None,
    ) -> None:
        """``most`` jobs run at the same time; one is tried ``tries`` times, the first wait between being given.

        ``kept_fresh`` are the models that are asked for in every window by themselves, after those of people. ``room``
        raises StoreFull where nothing more is to be begun. ``deliveries`` bring on what has come, if anybody wants it.
        """
        self._queue = queue
        self._fetch = fetch
        self._schedule = schedule
        self._clock = clock
        self._most = most
        self._tries = tries
        self._retry_delay_s = retry_delay_s
        self._kept_fresh = kept_fresh
        self._room = room
        self._deliveries = deliveries
        self._freshened: datetime | None = None
        self._running: dict[str, _Running] = {}
        self._progress: OrderedDict[str, PullProgress] = OrderedDict()

    @property
    def schedule(self) -> Schedule:
        """When it works."""
        return self._schedule

    def now(self) -> datetime:
        """Return the instant by which it works."""
        return self._clock.now()

    def progress(self, job: Job) -> PullProgress | None:
        """Return how far a job has come that is being fetched, or was lately; None before its first byte."""
        return self._progress.get(job.id)

    def change(self, schedule: Schedule) -> None:
        """Go by other windows from now on: what runs outside of them is parked."""
        self._schedule = schedule
        self._queue.changed.set()

    async def run(self) -> None:
        """Work until cancelled; then what runs is parked, and pending again."""
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    self._queue.changed.clear()
                    now = self._clock.now()
                    span = self._schedule.now(now)
                    if span is None:
                        self._freshened = None
                    elif self._freshened is None or now - self._freshened >= _A_DAY:
                        self._freshened = now
                        await self._freshen()
                    self._end_what_must(open_=span is not None)
                    self._begin_what_can(group, now, open_=span is not None)
                    await self._wait(span.end if span is not None else self._opens(now), now)
            finally:
                for running in self._running.values():
                    running.parked = True
                    running.task.cancel()

    async def _freshen(self) -> None:
        """Ask for every model that is to be kept fresh: one question each, and bytes only where it has changed."""
        for name in self._kept_fresh():
            try:
                await self._queue.ask(name, FRESH, priority=_AFTER_PEOPLE)
            except QueueError as error:
                log.warning("not kept fresh", name=name.short, problem=str(error))

    def _opens(self, now: datetime) -> datetime | None:
        following = self._schedule.next(now)
        return following.start if following is not None else None

    def _end_what_must(self, *, open_: bool) -> None:
        """Stop jobs that somebody took back, and park those whose window has closed."""
        under_way = {job.id: job for job in self._queue.jobs}
        for id_, running in self._running.items():
            job = under_way.get(id_)
            if job is None:
                running.task.cancel()
            elif not open_ and not job.at_once and job.state is State.DOWNLOADING and not running.parked:
                running.parked = True
                running.task.cancel()

    def _begin_what_can(self, group: asyncio.TaskGroup, now: datetime, *, open_: bool) -> None:
        if self._queue.paused:
            return
        for job in self._queue.jobs:
            if job.id in self._running or not job.ready(now, open_=open_):
                continue
            if job.state is State.DELIVERING or self._downloading < self._most:
                task = group.create_task(self._do(job), name=f"pull {job.name.short}")
                self._running[job.id] = _Running(task)

    @property
    def _downloading(self) -> int:
        """How many are being fetched; those on their way to an Ollama hold up no other."""
        delivering = {job.id for job in self._queue.jobs if job.state is State.DELIVERING}
        return sum(id_ not in delivering for id_ in self._running)

    async def _wait(self, boundary: datetime | None, now: datetime) -> None:
        """Wait until something has changed: the queue, the window, or a job that may be tried again."""
        due = [job.not_before for job in self._queue.jobs if job.not_before is not None and job.not_before > now]
        soonest = min([*due, *([boundary] if boundary is not None else [])], default=None)
        await until_or(self._clock, soonest, self._queue.changed)

    async def _do(self, job: Job) -> None:
        """Do one job; what the database cannot take is done again after the next start."""
        try:
            if job.state is State.DELIVERING and not self._holds(job):
                job = await self._queue.given_back(job)
            elif job.state is State.PENDING:
                job = await self._fetched(job)
            if not job.state.over and job.state is not State.PENDING:
                await self._delivered(job)
        except QueueUnusable as error:
            log.warning("queue", problem=str(error))
            await asyncio.sleep(_UNUSABLE_S)
        except NoSuchJob:
            pass  # somebody took it back meanwhile
        except Exception:  # the edge of a job: the others go on, and so does the service
            log.exception("pull failed", name=job.name.short)
            with suppress(NoSuchJob, QueueUnusable):
                await self._queue.ended(job, State.FAILED, "something nobody foresaw; the log has it")
        finally:
            self._running.pop(job.id, None)
            self._queue.changed.set()

    def _holds(self, job: Job) -> bool:
        return self._deliveries is not None and self._deliveries.holds(job.name)

    async def _fetched(self, job: Job) -> Job:
        """Bring a job's model into the store; return the job, which is over or waits where that failed."""
        job = await self._queue.begun(job)
        user = next((who for who in job.requesters if who != FRESH), LOCAL)

        def report(progress: PullProgress) -> None:
            self._progress[job.id] = progress
            if len(self._progress) > _MOST_PROGRESS:
                self._progress.popitem(last=False)

        try:
            self._room()
            final = await self._fetch(job.name, report, user, parks=True)
        except asyncio.CancelledError:
            await self._given_back(job)
            raise
        except NotAllowed as error:
            return await self._queue.ended(job, State.REFUSED, str(error))
        except MirrorError as error:
            return await self._failed(job, error)
        return await self._queue.sized(job, final.total)

    async def _delivered(self, job: Job) -> None:
        """Bring a job's model to the Ollamas that want it, if any does."""
        if self._deliveries is not None and await self._deliveries.wanted(job.name):
            job = await self._queue.delivering(job)
            try:
                await self._deliveries.deliver(job.name)
            except NotDelivered as error:
                await self._undelivered(job, error)
                return
        await self._queue.ended(job, State.COMPLETED)

    async def _undelivered(self, job: Job, error: NotDelivered) -> None:
        if job.tries >= self._tries:
            await self._queue.ended(job, State.FAILED, str(error))
        else:
            await self._queue.undelivered(job, str(error), self._clock.now() + self._pause(job))

    async def _given_back(self, job: Job) -> None:
        with suppress(NoSuchJob, QueueUnusable):
            await self._queue.given_back(job)

    async def _failed(self, job: Job, error: MirrorError) -> Job:
        """Let a failure that may pass be tried again, later each time."""
        may_pass = not error.permanent or isinstance(error, StoreFull)
        if not may_pass or job.tries >= self._tries:
            return await self._queue.ended(job, State.FAILED, str(error))
        wait = _NO_ROOM if isinstance(error, StoreFull) else self._pause(job)
        return await self._queue.given_back(job, str(error), self._clock.now() + wait)

    def _pause(self, job: Job) -> timedelta:
        return timedelta(seconds=self._retry_delay_s * 2.0 ** max(0, job.tries - 1))
