"""The queue of pulls: one job for all who ask, in an order that can be changed, and there after any end."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.db import open_database
from mirror.errors import NoSuchJob, QueueFull, QueueUnusable
from mirror.pulls import Queue, State
from mirror.values import ModelName


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """What it shows."""
        return self.now

    def move(self, **how: float) -> None:
        """Let time pass."""
        self.now += timedelta(**how)


@asynccontextmanager
async def opened(folder: Path, clock: Clock | None = None, most: int = 1000) -> AsyncIterator[Queue]:
    """The queue as a new process finds it."""
    engine = await open_database(None, folder / "mirror.db")
    try:
        queue = Queue(engine, most, clock or Clock())
        await queue.load()
        yield queue
    finally:
        await engine.dispose()


def name(text: str) -> ModelName:
    """A model's name."""
    return ModelName.parse(text)


def names(queue: Queue) -> list[str]:
    """The models under way, in order."""
    return [job.name.model for job in queue.jobs]


async def test_ten_who_ask_have_one_job(tmp_path: Path) -> None:
    """Whatever the letter case; each asker is known once."""
    async with opened(tmp_path) as queue:
        asked = [await queue.ask(name(text), f"10.0.0.{index % 3}") for index, text in enumerate(["M:1", "m:1"] * 5)]
        assert [one.is_new for one in asked] == [True] + [False] * 9
        (job,) = queue.jobs
        assert job.requesters == ("10.0.0.0", "10.0.0.1", "10.0.0.2")
        assert await queue.asked_since("10.0.0.1", queue.jobs[0].created_at) == 1
        await queue.ask(name("m:2"), "10.0.0.1")
        assert len(queue.jobs) == 2


async def test_the_order_is_priority_then_first_come_and_can_be_changed(tmp_path: Path) -> None:
    """Also after a restart."""
    async with opened(tmp_path) as queue:
        for text, priority in (("a", 0), ("b", 0), ("c", 5), ("d", 0)):
            await queue.ask(name(text), "x", priority=priority)
        assert names(queue) == ["c", "a", "b", "d"]
        await queue.move("d:latest", 1)
        assert names(queue) == ["d", "c", "a", "b"]
        await queue.move("c:latest", 99)
        assert names(queue) == ["d", "a", "b", "c"]
        await queue.move(queue.jobs[3].id, 2)
        assert [queue.position(job) for job in queue.jobs] == [1, 2, 3, 4]
        await queue.ask(name("b"), "y", priority=9)
    async with opened(tmp_path) as queue:
        assert names(queue) == ["b", "d", "c", "a"]


@settings(max_examples=30, deadline=None)
@given(moves=st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 8)), max_size=12))
async def test_moving_is_what_it_is_in_a_list(
    moves: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However often: no two ever share a place."""
    order = list("abcdef")
    async with opened(tmp_path_factory.mktemp("queue")) as queue:
        for text in order:
            await queue.ask(name(text), "x")
        for which, to in moves:
            one = order.pop(which)
            order.insert(min(max(to, 1), 6) - 1, one)
            await queue.move(f"{one}:latest", to)
            assert names(queue) == order


async def test_what_a_dead_process_had_taken_is_taken_again(tmp_path: Path) -> None:
    """Its tries count; what was over stays over, and what was in the store already is on its way still."""
    clock = Clock()
    async with opened(tmp_path, clock) as queue:
        jobs = [(await queue.ask(name(text), "x")).job for text in "abcd"]
        await queue.begun(jobs[0])
        await queue.sized(jobs[0], 5000)
        await queue.delivering(await queue.begun(jobs[1]))
        await queue.ended(await queue.begun(jobs[2]), State.COMPLETED)
    async with opened(tmp_path, clock) as queue:
        assert [job.state for job in queue.jobs] == [State.PENDING, State.DELIVERING, State.PENDING]
        assert names(queue) == ["a", "b", "d"]
        first = queue.jobs[0]
        assert (first.size, first.tries, first.requesters) == (5000, 1, ("x",))
        assert [job.name.model for job in await queue.history(10)] == ["c"]
        assert (await queue.counts())[State.PENDING] == 2


async def test_a_failure_that_may_pass_waits_and_the_end_of_a_window_is_none(tmp_path: Path) -> None:
    """Nights are long: a job that is parked at each of their ends must not run out of tries."""
    clock = Clock()
    async with opened(tmp_path, clock) as queue:
        job = await queue.begun((await queue.ask(name("a"), "x")).job)
        job = await queue.given_back(job)
        assert (job.state, job.tries, job.ready(clock(), open_=True)) == (State.PENDING, 0, True)
        job = await queue.given_back(await queue.begun(job), "no answer", clock() + timedelta(minutes=5))
        assert (job.tries, job.error, job.ready(clock(), open_=True)) == (1, "no answer", False)
        clock.move(minutes=5)
        assert job.ready(clock(), open_=True)
        assert not job.ready(clock(), open_=False)
        assert (await queue.hurry("a:latest")).ready(clock(), open_=False)


async def test_cancel_retry_and_what_is_not_there(tmp_path: Path) -> None:
    """By name or by id; a name that was taken back can be asked for anew."""
    async with opened(tmp_path) as queue:
        job = (await queue.ask(name("a"), "x", priority=3)).job
        for wrong in (queue.cancel, queue.hurry, queue.retry):
            with pytest.raises(NoSuchJob, match="b"):
                await wrong("b")
        assert (await queue.cancel(job.id)).state is State.CANCELLED
        with pytest.raises(NoSuchJob):
            await queue.begun(job)
        assert not queue.jobs
        again = await queue.retry("a:latest")
        assert (again.id != job.id, again.priority, again.requesters) == (True, 3, ("x",))


async def test_a_full_queue_takes_askers_for_what_is_in_it(tmp_path: Path) -> None:
    """And nothing new."""
    async with opened(tmp_path, most=2) as queue:
        for text in ("a", "b"):
            await queue.ask(name(text), "x")
        with pytest.raises(QueueFull, match=r"pulls\.max_queued is 2"):
            await queue.ask(name("c"), "x")
        assert not (await queue.ask(name("a"), "y")).is_new


async def test_old_jobs_are_forgotten_with_their_askers(tmp_path: Path) -> None:
    """Not those under way, however old."""
    clock = Clock()
    async with opened(tmp_path, clock) as queue:
        await queue.ended((await queue.ask(name("old"), "x")).job, State.FAILED, "gone")
        await queue.ask(name("waits"), "x")
        begun = clock()
        clock.move(days=31)
        assert await queue.forget_before(clock() - timedelta(days=30)) == 1
        assert (await queue.history(10), names(queue)) == ([], ["waits"])
        assert await queue.asked_since("x", begun) == 1


async def test_a_pause_lasts(tmp_path: Path) -> None:
    """Who stops the downloads for the exams finds them stopped after a power cut."""
    async with opened(tmp_path) as queue:
        await queue.pause(paused=True)
    async with opened(tmp_path) as queue:
        assert queue.paused
        await queue.pause(paused=False)
    async with opened(tmp_path) as queue:
        assert not queue.paused


async def test_what_cannot_be_written_has_not_happened(tmp_path: Path) -> None:
    """A job that is only in memory would be lost without a word."""
    async with opened(tmp_path) as queue:
        job = (await queue.ask(name("a"), "x")).job
        with closing(sqlite3.connect(tmp_path / "mirror.db")) as other:
            for table in ("pull_requesters", "pull_jobs", "pull_switches"):
                other.execute(f"DROP TABLE {table}")
        for change in (queue.ask(name("b"), "x"), queue.cancel(job.id), queue.begun(job), queue.pause(paused=True)):
            with pytest.raises(QueueUnusable, match="cannot be read or written"):
                await change
        assert (names(queue), queue.jobs[0].state, queue.paused) == (["a"], State.PENDING, False)
