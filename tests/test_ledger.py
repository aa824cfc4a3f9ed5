"""What is remembered of models and bytes: kept across restarts, and across a database that fails."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from mirror.db import Ledger, ModelUse, Traffic, open_database
from mirror.events import (
    BlobServed,
    BytesFetched,
    Event,
    Events,
    FillStarted,
    ManifestServed,
    ModelRemoved,
    Reason,
    Served,
)
from mirror.values import Digest, ModelName

NAME = ModelName.parse("tiny")
DIGEST = Digest.of(b"")
NEWS: list[Event] = [
    ManifestServed(NAME, Served.HIT),
    ManifestServed(ModelName.parse("TINY"), Served.STALE),
    BlobServed(NAME, DIGEST, Served.HIT, 1000),
    BlobServed(NAME, DIGEST, Served.FILL, 20),
    BlobServed(NAME, DIGEST, Served.PASS, 3),
    BytesFetched(DIGEST, 100),
    BytesFetched(DIGEST, 11),
    FillStarted(DIGEST, 5, 0),
]
HEARD = Traffic(hits=1, misses=2, served_bytes=1023, fetched_bytes=111)


class Clock:
    """An instant that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 28, 23, 59, 50, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Say what time it is."""
        return self.now


@pytest.fixture(autouse=True)
async def no_thread_is_left() -> AsyncIterator[None]:
    """Those of connections that failed or were cancelled have a last word for this test's loop."""
    others = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - others:
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()


@pytest.fixture
def clock() -> Clock:
    """A little before midnight."""
    return Clock()


@asynccontextmanager
async def ledger_on(file: Path, clock: Clock | None = None) -> AsyncIterator[Ledger]:
    """What a process sees that has opened the file anew."""
    engine = await open_database(None, file)
    try:
        ledger = Ledger(engine, clock or Clock())
        await ledger.load()
        yield ledger
    finally:
        await engine.dispose()


async def test_counts_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    """What a mirror has saved is counted over years, not since the last update of the machine."""
    file = tmp_path / "mirror.db"
    for times in (1, 2, 3):
        async with ledger_on(file, clock) as ledger:
            for event in NEWS:
                ledger.hear(event)
            await ledger.flush()
        async with ledger_on(file) as ledger:
            assert ledger.total == Traffic(times, 2 * times, 1023 * times, 111 * times)
            assert ledger.total.saved_bytes == times * (1023 - 111)
            assert ledger.use(NAME) == ModelUse(None, clock.now, 2 * times)


async def test_the_kinds_of_news_it_names_are_all_it_counts(tmp_path: Path, clock: Clock) -> None:
    """It is told of no others: a kind left out there would silently not be counted."""
    events = Events()
    async with ledger_on(tmp_path / "mirror.db", clock) as ledger:
        events.tap(ledger.hear, *ledger.kinds)
        for event in NEWS:
            events.publish(event)
        assert (ledger.total, ledger.use(NAME).uses) == (HEARD, 2)
        events.publish(ModelRemoved(NAME, 5, Reason.ASKED, "a test"))
        assert ledger.use(NAME) == ModelUse()


async def test_what_was_just_heard_is_counted_before_it_is_written(tmp_path: Path, clock: Clock) -> None:
    """The page shows now, not five seconds ago; and looking twice counts nothing twice."""
    async with ledger_on(tmp_path / "mirror.db", clock) as ledger:
        for event in NEWS:
            ledger.hear(event)
        for _ in range(3):
            assert ledger.total == HEARD
            assert (ledger.use(NAME).used_at, ledger.use(NAME).uses) == (clock.now, 2)
            ledger.checked(NAME, clock.now)
            assert ledger.use(NAME) == ModelUse(clock.now, clock.now, 2)
            await ledger.flush()


async def test_days_are_those_of_utc(tmp_path: Path, clock: Clock) -> None:
    """A day must not change its length twice a year, nor with the machine's zone."""
    file = tmp_path / "mirror.db"
    async with ledger_on(file, clock) as ledger:
        for _ in range(2):
            ledger.hear(BytesFetched(DIGEST, 5))
            await ledger.flush()
            clock.now += timedelta(seconds=20)
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT day, fetched_bytes FROM traffic ORDER BY day")).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [("2026-03-28", 5), ("2026-03-29", 5)]


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
async def test_instants_come_back_the_same_and_in_utc(tmp_path: Path, zone: timezone) -> None:
    """SQLite keeps no zone; an instant read back hours off would make a tag look fresh or stale."""
    when = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=zone)
    async with ledger_on(tmp_path / "mirror.db") as ledger:
        ledger.checked(NAME, when)
        assert ledger.checked_at(NAME) == when
        await ledger.flush()
    async with ledger_on(tmp_path / "mirror.db") as ledger:
        found = ledger.checked_at(ModelName.parse("Tiny"))
        assert found == when
        assert found is not None
        assert found.tzinfo is UTC


async def test_a_removed_model_begins_anew(tmp_path: Path) -> None:
    """Its last check must not make the tag of a model that is pulled again look fresh; nor a use just before."""
    async with ledger_on(tmp_path / "mirror.db") as ledger:
        ledger.checked(NAME, datetime.now(UTC))
        ledger.hear(ManifestServed(NAME, Served.HIT))
        ledger.hear(ModelRemoved(NAME, 5, Reason.ASKED, "a test"))
        await ledger.flush()
    async with ledger_on(tmp_path / "mirror.db") as ledger:
        assert ledger.use(NAME) == ModelUse()


async def test_a_flush_that_fails_keeps_the_counts_for_the_next(tmp_path: Path) -> None:
    """A database out of order for an hour costs nothing."""
    file = tmp_path / "mirror.db"
    async with ledger_on(file) as ledger:
        await break_database(file)
        for event in NEWS:
            ledger.hear(event)
        await ledger.flush()
        assert ledger.total == HEARD
        await mend_database(file)
        await ledger.flush()
    async with ledger_on(file) as ledger:
        assert (ledger.total, ledger.use(NAME).uses) == (HEARD, 2)


async def break_database(file: Path) -> None:
    """Take the tables away."""
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE traffic RENAME TO elsewhere")
    connection.close()


async def mend_database(file: Path) -> None:
    """Bring them back."""
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO traffic")
    connection.close()


async def test_a_flush_that_is_cancelled_keeps_the_counts_for_the_last(tmp_path: Path) -> None:
    """At the end of a process the loop that flushes is cancelled, and then everything is flushed once more."""
    for turns in range(8):
        file = tmp_path / f"{turns}.db"
        async with ledger_on(file) as ledger:
            for event in NEWS:
                ledger.hear(event)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(ledger.flush())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
            await ledger.flush()
        async with ledger_on(file) as ledger:
            assert ledger.total == HEARD
