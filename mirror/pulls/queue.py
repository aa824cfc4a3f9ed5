"""The queue of pulls, in the database: what is wanted, by whom, in which order. It survives the process."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db import in_transaction
from mirror.db.tables import pull_jobs, pull_requesters, pull_switches
from mirror.errors import NoSuchJob, QueueFull, QueueUnusable
from mirror.pulls.job import UNDER_WAY, Job, State
from mirror.pulls.rows import read_jobs, row_of, save
from mirror.values import ModelName

T = TypeVar("T")
_PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking: the job, and whether it was begun by this."""

    job: Job
    is_new: bool


class Queue:
    """Jobs under way in memory, all of them in the database, which is written first. For the event loop's thread.

    Changes come one after another. Every call that changes something raises QueueUnusable where the database cannot be
    written; nothing has changed then. ``changed`` is set after every change, for whoever waits to be told.
    ``followers`` counts who waits for a job to end, by its id.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        most: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        ended: Callable[[Job], None] = lambda _: None,
    ) -> None:
        """``most`` is how many jobs may be under way at once; ``ended`` is told of each that is over."""
        self._engine = engine
        self._ended = ended
        self._most = most
        self._now = now
        self._jobs: dict[str, Job] = {}
        self._changes = asyncio.Lock()
        self.paused = False
        self.changed = asyncio.Event()
        self.followers: Counter[str] = Counter()

    async def load(self) -> None:
        """Read what is under way; what a process that died was fetching is pending again."""

        async def read(connection: AsyncConnection) -> None:
            taken = pull_jobs.c.state == State.DOWNLOADING.value
            await connection.execute(update(pull_jobs).where(taken).values(state=State.PENDING.value))
            under_way = pull_jobs.c.state.in_([one.value for one in UNDER_WAY])
            jobs = await read_jobs(connection, select(pull_jobs).where(under_way))
            switch = select(pull_switches.c.value).where(pull_switches.c.name == _PAUSED)
            self.paused = await connection.scalar(switch) == "yes"
            self._jobs = {job.id: job for job in jobs}

        await self._writing(read)

    @property
    def jobs(self) -> list[Job]:
        """Every job under way, in the order in which they are begun."""
        return sorted(self._jobs.values(), key=lambda job: job.order)

    def of(self, name: ModelName) -> Job | None:
        """Return the job under way for a model, whatever the letter case of its name."""
        return next((job for job in self._jobs.values() if job.name.folded == name.folded), None)

    def get(self, job: Job) -> Job | None:
        """Return what has become of a job; None where it is over."""
        return self._jobs.get(job.id)

    async def ended_as(self, job: Job) -> Job:
        """Return how a job ended that is over."""

        async def read(connection: AsyncConnection) -> list[Job]:
            return await read_jobs(connection, select(pull_jobs).where(pull_jobs.c.id == job.id))

        return next(iter(await self._writing(read)), job)

    def position(self, job: Job) -> int:
        """Return how many come before a job, and itself: 1 is the next; 0 for one that does not wait any more."""
        waiting = [one.id for one in self.jobs if one.state is State.PENDING]
        return waiting.index(job.id) + 1 if job.id in waiting else 0

    async def ask(self, name: ModelName, who: str, *, priority: int = 0, at_once: bool = False) -> Asked:
        """Want a model: join the job there is for it, or make one.

        Raises QueueFull where too many are under way.
        """
        async with self._changes:
            now, job = self._now(), self.of(name)
            is_new = job is None
            if job is None:
                if len(self._jobs) >= self._most:
                    raise QueueFull(
                        f"the queue is full (pulls.max_queued is {self._most}); try again when some models have come"
                    )
                place = max((one.place for one in self._jobs.values()), default=0.0) + 1.0
                job = Job(id=secrets.token_hex(6), name=name, state=State.PENDING, created_at=now, place=place)
            joins = who not in job.requesters
            job = replace(job, priority=max(job.priority, priority), at_once=job.at_once or at_once).asked_by(who)
            if at_once:
                job = replace(job, not_before=None, error=None)

            async def write(connection: AsyncConnection) -> None:
                if is_new:
                    await connection.execute(insert(pull_jobs).values(**row_of(job)))
                else:
                    await save(connection, job)
                if joins:
                    await connection.execute(insert(pull_requesters).values(job=job.id, who=who, asked_at=now))

            await self._writing(write)
            self._put(job)
        return Asked(job, is_new)

    async def begun(self, job: Job) -> Job:
        """It is being fetched now, one time more."""
        started = job.started_at or self._now()
        return await self._change(
            job.id, lambda one: replace(one, state=State.DOWNLOADING, tries=one.tries + 1, started_at=started)
        )

    async def sized(self, job: Job, size: int) -> Job:
        """Its manifest is known, and says how many bytes it has."""
        return await self._change(job.id, lambda one: replace(one, size=size))

    async def delivering(self, job: Job) -> Job:
        """It is in the store, and on its way."""
        return await self._change(job.id, lambda one: replace(one, state=State.DELIVERING))

    async def undelivered(self, job: Job, error: str, again_at: datetime) -> Job:
        """It is in the store, and was not delivered; that is tried again, whatever the hour."""
        return await self._change(
            job.id, lambda one: replace(one, tries=one.tries + 1, error=error, not_before=again_at)
        )

    async def ended(self, job: Job, state: State, error: str | None = None) -> Job:
        """It is over."""
        over = await self._change(
            job.id, lambda one: replace(one, state=state, error=error, finished_at=self._now(), at_once=False)
        )
        self._ended(over)
        return over

    async def given_back(self, job: Job, error: str | None = None, again_at: datetime | None = None) -> Job:
        """It waits again: because its window has closed, or, with an ``error``, because it failed for now."""
        tries = job.tries if error is not None else max(0, job.tries - 1)
        return await self._change(
            job.id,
            lambda one: replace(one, state=State.PENDING, tries=tries, error=error or one.error, not_before=again_at),
        )

    async def cancel(self, reference: str) -> Job:
        """Take a job back, given by id or name. Raises NoSuchJob for one that is over or was never there."""
        return await self.ended(self._under_way(reference), State.CANCELLED)

    async def hurry(self, reference: str) -> Job:
        """Let a job wait for no window. Raises NoSuchJob."""
        job = self._under_way(reference)
        return await self._change(job.id, lambda one: replace(one, at_once=True, not_before=None))

    async def move(self, reference: str, position: int) -> Job:
        """Put a job that waits at a position, 1 being the next; it takes the priority there. Raises NoSuchJob."""
        job = self._under_way(reference)
        others = [one for one in self.jobs if one.state is State.PENDING and one.id != job.id]
        at = min(max(position, 1), len(others) + 1) - 1
        neighbour = (others[at : at + 1] or others[-1:] or [job])[0]
        order = [*others[:at], replace(job, priority=neighbour.priority), *others[at:]]
        moved = [replace(one, place=float(place)) for place, one in enumerate(order, 1)]

        async def write(connection: AsyncConnection) -> None:
            for one in moved:
                await save(connection, one)

        async with self._changes:
            await self._writing(write)
            for one in moved:
                self._put(one)
        return self._jobs[job.id]

    async def retry(self, reference: str) -> Job:
        """Have a job that failed or was cancelled done after all, or one that waits after a failure tried now.

        Raises NoSuchJob, QueueFull.
        """
        for job in self._jobs.values():
            if reference in (job.id, job.name.short):
                return await self._change(job.id, lambda one: replace(one, not_before=None))
        found = [job for job in await self.history(1000) if reference in (job.id, job.name.short)]
        if not found:
            raise NoSuchJob(f"there is no job {reference}; mirror pulls list shows those there are")
        job = found[0]
        who = job.requesters[0] if job.requesters else "nobody"
        return (await self.ask(job.name, who, priority=job.priority)).job

    async def pause(self, *, paused: bool) -> None:
        """Begin no job any more, or begin them again; those being fetched go on."""

        async def write(connection: AsyncConnection) -> None:
            await connection.execute(delete(pull_switches).where(pull_switches.c.name == _PAUSED))
            await connection.execute(insert(pull_switches).values(name=_PAUSED, value="yes" if paused else "no"))

        async with self._changes:
            await self._writing(write)
            self.paused = paused
            self.changed.set()

    async def history(self, most: int) -> list[Job]:
        """Return jobs that are over, the latest first."""

        async def read(connection: AsyncConnection) -> list[Job]:
            over = pull_jobs.c.state.not_in([one.value for one in UNDER_WAY])
            query = select(pull_jobs).where(over).order_by(pull_jobs.c.finished_at.desc()).limit(most)
            return await read_jobs(connection, query)

        return await self._writing(read)

    async def counts(self) -> dict[State, int]:
        """Return how many jobs there are of each state, those that are over too."""

        async def read(connection: AsyncConnection) -> dict[State, int]:
            query = select(pull_jobs.c.state, func.count()).group_by(pull_jobs.c.state)
            found = {State(row[0]): int(row[1]) for row in await connection.execute(query)}
            return {state: found.get(state, 0) for state in State}

        return await self._writing(read)

    async def asked_since(self, who: str, since: datetime) -> int:
        """Return for how many jobs somebody asked since an instant."""

        async def read(connection: AsyncConnection) -> int:
            mine = (pull_requesters.c.who == who) & (pull_requesters.c.asked_at >= since)
            return int(await connection.scalar(select(func.count()).select_from(pull_requesters).where(mine)) or 0)

        return await self._writing(read)

    async def forget_before(self, instant: datetime) -> int:
        """Forget jobs that were over before an instant; return how many."""

        async def write(connection: AsyncConnection) -> int:
            over = pull_jobs.c.state.not_in([one.value for one in UNDER_WAY]) & (pull_jobs.c.finished_at < instant)
            ids = [row[0] for row in await connection.execute(select(pull_jobs.c.id).where(over))]
            for id_ in ids:
                await connection.execute(delete(pull_requesters).where(pull_requesters.c.job == id_))
                await connection.execute(delete(pull_jobs).where(pull_jobs.c.id == id_))
            return len(ids)

        return await self._writing(write)

    def _under_way(self, reference: str) -> Job:
        for job in self._jobs.values():
            if reference in (job.id, job.name.short, str(job.name)):
                return job
        raise NoSuchJob(f"{reference} is not queued; mirror pulls list shows what is")

    async def _change(self, id_: str, change: Callable[[Job], Job]) -> Job:
        async with self._changes:
            job = self._jobs.get(id_)
            if job is None:
                raise NoSuchJob(f"job {id_} is over")
            new = change(job)
            await self._writing(lambda connection: save(connection, new))
            self._put(new)
            return new

    def _put(self, job: Job) -> None:
        if job.state.over:
            self._jobs.pop(job.id, None)
        else:
            self._jobs[job.id] = job
        self.changed.set()

    async def _writing(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            return await in_transaction(self._engine, work)
        except SQLAlchemyError as error:
            raise QueueUnusable(
                f"the queue cannot be read or written: {getattr(error, 'orig', None) or error}"
            ) from error
