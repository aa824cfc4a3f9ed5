"""What tags meant before: remembered in order, in bounds, and across restarts."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as some

from mirror.db import Ledger, TagHistory, open_database
from mirror.events import ModelRemoved, ModelReplaced, ModelStored, Reason
from mirror.values import Digest, Manifest, ModelName
from tests.stored import manifest_of

NAME = ModelName.parse("tiny")
MANIFESTS = [manifest_of(bytes([number])) for number in range(9)]
FIRST, SECOND, THIRD = MANIFESTS[:3]


class Clock:
    """A second passes at every look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time."""
        self.now += timedelta(seconds=1)
        return self.now


@asynccontextmanager
async def history_on(file: Path) -> AsyncIterator[TagHistory]:
    """What a process sees that has opened the file anew."""
    engine = await open_database(None, file)
    try:
        history = TagHistory(engine, Clock())
        await history.load()
        yield history
    finally:
        await engine.dispose()


def digests(history: TagHistory, name: ModelName = NAME) -> list[Digest]:
    """What a tag is known to have meant, in order."""
    return [one.digest for one in history.meanings(name)]


def move(history: TagHistory, former: Manifest, manifest: Manifest, name: ModelName = NAME) -> None:
    """Tell of a tag that moved, as the store does."""
    history.hear(ModelReplaced(name, former, manifest))
    history.hear(ModelStored(name, manifest.digest, manifest.size))


@examples(max_examples=40, deadline=None)
@given(
    some.lists(some.tuples(some.sampled_from(["on", "back", "release", "restart"]), some.integers(0, 8)), max_size=30)
)
def test_wherever_a_tag_goes_its_last_meanings_are_known_in_order(steps: list[tuple[str, int]]) -> None:
    """Five before and the one it means; what people go back to keeps its place, what comes from upstream is last."""

    async def run(file: Path) -> None:
        now, order = FIRST, [FIRST.digest]
        held: Digest | None = None
        for step, number in steps:
            async with history_on(file) as history:
                if step == "on" and MANIFESTS[number].digest != now.digest:
                    move(history, now, MANIFESTS[number])
                    now, held = MANIFESTS[number], None
                    order = [one for one in order if one != now.digest] + [now.digest]
                elif step == "back" and len(digests(history)) > 1:
                    back = history.meanings(NAME)[number % len(history.meanings(NAME))]
                    former, now, held = now, Manifest.parse(back.raw), back.digest
                    history.hold(NAME, now.digest, now.raw)
                    if former.digest != now.digest:
                        move(history, former, now)
                elif step == "release":
                    assert history.release(NAME) == (held is not None)
                    held = None
                while len(order) > 6:
                    order.remove(next(one for one in order if one != now.digest))
                assert digests(history) in ([], order)
                assert bool(digests(history)) == (len(order) > 1)
                assert (one.digest if (one := history.held(NAME)) else None) == held
                assert all((one.replaced_at is None) == (one.digest == now.digest) for one in history.meanings(NAME))
                known = history.meanings(NAME)
                await history.flush()
            async with history_on(file) as again:
                assert again.meanings(NAME) == known

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder) / "mirror.db"))


async def test_a_name_is_one_in_whatever_letter_case(tmp_path: Path) -> None:
    """As everywhere: Ollama makes no difference."""
    async with history_on(tmp_path / "mirror.db") as history:
        move(history, FIRST, SECOND)
        assert digests(history, ModelName.parse("Tiny")) == [FIRST.digest, SECOND.digest]
        assert digests(history, ModelName.parse("tiny:other")) == []


@pytest.mark.parametrize(
    ("reason", "known"),
    [(Reason.ASKED, False), (Reason.ELSEWHERE, False), (Reason.SIZE, True), (Reason.RETENTION, True)],
)
async def test_what_people_remove_begins_anew(reason: Reason, known: bool, tmp_path: Path) -> None:
    """What went for room only is held all the same: nobody took that back."""
    file = tmp_path / "mirror.db"
    async with history_on(file) as history:
        move(history, FIRST, SECOND)
        history.hold(NAME, FIRST.digest, FIRST.raw)
        await history.flush()
        history.hear(ModelRemoved(NAME, 5, reason, "a test"))
        await history.flush()
    async with history_on(file) as history:
        assert bool(history.meanings(NAME)) == bool(history.held(NAME)) == known


async def test_a_hold_ends_where_the_tag_comes_to_mean_something_else(tmp_path: Path) -> None:
    """As by an import; a model that is complete again where it is held is nothing else."""
    async with history_on(tmp_path / "mirror.db") as history:
        history.hold(NAME, FIRST.digest, FIRST.raw)
        history.hear(ModelStored(NAME, FIRST.digest, 1))
        assert history.held(NAME)
        history.hear(ModelStored(NAME, SECOND.digest, 1))
        assert history.held(NAME) is None


async def test_large_manifests_and_too_many_are_not_kept(tmp_path: Path) -> None:
    """A registry whose tags move all day must not fill memory or the database; what is held stays."""
    large = [manifest_of(bytes([number]), padding="x" * 1_000_000) for number in range(60)]
    huge = manifest_of(b"huge", padding="x" * (1 << 20))
    async with history_on(tmp_path / "mirror.db") as history:
        move(history, huge, FIRST)
        assert digests(history) == [FIRST.digest]
        history.hold(NAME.with_tag("t0"), large[0].digest, large[0].raw)
        for number, (former, manifest) in enumerate(pairwise(large)):
            move(history, former, manifest, NAME.with_tag(f"t{number // 5 + 1}"))
        names = [NAME.with_tag(f"t{number}") for number in range(13)]
        raws = [len(one.raw) for name in names for one in history.meanings(name)]
        assert 30_000_000 < sum(raws) <= 32 << 20
        assert history.held(names[0])
        assert [one.replaced_at for one in history.meanings(names[1])] == [None]
        assert digests(history, names[-1])[-1] == large[-1].digest
        await history.flush()
    async with history_on(tmp_path / "mirror.db") as history:
        assert [len(one.raw) for name in names for one in history.meanings(name)] == raws


async def test_a_row_that_is_not_what_its_digest_says_is_left_out(tmp_path: Path) -> None:
    """Nobody is served a manifest that a disk has changed."""
    file = tmp_path / "mirror.db"
    async with history_on(file) as history:
        move(history, FIRST, SECOND)
        await history.flush()
    with closing(sqlite3.connect(file)) as connection, connection:
        spoil = "UPDATE tag_meanings SET raw = ? WHERE digest = ?"
        connection.execute(spoil, (b"{}", str(FIRST.digest)))
        connection.execute("INSERT INTO tag_meanings VALUES ('x', 'y', 0, ?, NULL, NULL)", (b"{}",))
    async with history_on(file) as history:
        assert digests(history) == [SECOND.digest]


async def test_a_flush_that_fails_or_is_cancelled_keeps_it_for_the_next(tmp_path: Path) -> None:
    """A database out of order for an hour costs nothing; a flush waits for the other, for its end means written."""
    file = tmp_path / "mirror.db"
    async with history_on(file) as history:
        move(history, FIRST, SECOND)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("ALTER TABLE tag_meanings RENAME TO elsewhere")
        await history.flush()
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("ALTER TABLE elsewhere RENAME TO tag_meanings")
        for turns in range(8):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(history.flush())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
            history.hold(NAME, FIRST.digest, FIRST.raw)
        move(history, SECOND, THIRD)
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(history.flush()), group.create_task(history.flush())
        assert first.done()
        assert second.done()
    async with history_on(file) as history:
        assert digests(history) == [FIRST.digest, SECOND.digest, THIRD.digest]


async def test_the_ledger_loads_tells_and_writes_it(tmp_path: Path) -> None:
    """Whoever has the one has the other."""
    engine = await open_database(None, tmp_path / "mirror.db")
    ledger = Ledger(engine)
    assert ModelReplaced in ledger.kinds
    ledger.hear(ModelReplaced(NAME, FIRST, SECOND))
    await ledger.flush()
    again = Ledger(engine)
    await again.load()
    assert digests(again.tags) == [FIRST.digest, SECOND.digest]
    await engine.dispose()
