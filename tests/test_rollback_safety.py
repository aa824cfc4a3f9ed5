"""A tag on its way back: killed, cancelled, without room, or with others at work on the same name."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirror.app import Parts
from mirror.errors import StoreFull
from mirror.events import ModelReplaced, Reason
from tests.fakes.registry import running_fake_registry
from tests.process import run
from tests.stored import keep, manifest_of, opened, publish
from tests.support import MODEL, SOON_S, mirrored, until
from tests.tagged import SIZE, back, known, meant, parts_of, publish_model, pulled, quiet, served, two


def is_held(parts: Parts) -> bool:
    """It is known that the tag shall stay."""
    return parts.ledger.tags.held(MODEL) is not None


def is_staged(parts: Parts) -> bool:
    """The first of two steps on the disk is done."""
    return parts.store.staged.find(MODEL) is not None


def is_put(parts: Parts) -> bool:
    """The second is done too."""
    return len(parts.store.complete) == 1 and not is_staged(parts) and is_held(parts)


async def test_a_rollback_that_is_given_up_changes_nothing(tmp_path: Path) -> None:
    """Its admin has closed the lid."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        old, new = await pulled(mirror.parts, fake, 1, 2)
        await mirror.parts.store.drop_loose([old.layers[0].digest])
        fake.hold(old.layers[0].digest, 1000)
        async with asyncio.TaskGroup() as group:
            going = group.create_task(back(mirror.parts))
            await until(mirror, lambda: any(fill.here >= 1000 for fill in mirror.parts.fills.in_flight))
            going.cancel()
        fake.release(old.layers[0].digest)
        assert (meant(mirror.parts), await served(client)) == (new.digest, new.digest)
        assert mirror.parts.ledger.tags.held(MODEL) is None
        assert not mirror.parts.store.blobs.wanted


@pytest.mark.parametrize("when", [is_held, is_staged, is_put])
async def test_cancelled_on_the_way_the_hold_is_where_the_tag_is(when: Callable[[Parts], bool], tmp_path: Path) -> None:
    """Whatever was done by then is all of it or nothing."""
    old, new = await two(tmp_path)
    async with parts_of(tmp_path) as parts:
        async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
            going = group.create_task(back(parts))
            while not when(parts) and not going.done():  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0)
            going.cancel()
        now, held = meant(parts), parts.ledger.tags.held(MODEL)
        assert now in (old.digest, new.digest)
        assert (held.digest if held else None) == (old.digest if now == old.digest else None)
    async with parts_of(tmp_path) as parts:
        again = parts.ledger.tags.held(MODEL)
        assert (meant(parts), again.digest if again else None) == (now, held.digest if held else None)


async def test_a_pull_that_goes_on_meanwhile_does_not_move_the_tag(tmp_path: Path) -> None:
    """It was begun for what the tag meant upstream; people have chosen since."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        old, new = await pulled(mirror.parts, fake, 1, 2)
        newest = publish_model(fake, 3)
        fake.hold(newest.layers[0].digest, 1000)
        async with asyncio.TaskGroup() as group:
            pulling = group.create_task(mirror.parts.puller.pull(MODEL, quiet))
            await until(mirror, lambda: any(fill.here >= 1000 for fill in mirror.parts.fills.in_flight))
            assert known(mirror.parts) == [new.digest, old.digest]
            await back(mirror.parts)
            assert (meant(mirror.parts), await served(client)) == (new.digest, new.digest)
            fake.release(newest.layers[0].digest)
            await pulling
        assert (meant(mirror.parts), await served(client)) == (new.digest, new.digest)


async def test_an_answer_that_was_asked_for_before_does_not_move_the_tag(tmp_path: Path) -> None:
    """What waits in the row of changes behind a rollback is looked at again when it is its turn."""
    old, new = await two(tmp_path)
    async with parts_of(tmp_path) as parts:
        await parts.store.put_manifest(MODEL, old, unless=lambda: parts.store.find(MODEL) is not None)
        assert meant(parts) == new.digest
        await parts.store.put_manifest(MODEL, old, unless=lambda: False)
        assert meant(parts) == old.digest


async def test_a_model_that_is_complete_just_before_does_not_end_the_hold(tmp_path: Path) -> None:
    """Its name was taken between the wish and the deed; it is one more of those that the tag meant before."""
    old, new = await two(tmp_path)
    between = manifest_of(b"between")
    async with parts_of(tmp_path) as parts:
        publish(parts.store.layout, b"between")
        async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
            going = group.create_task(back(parts))
            while not is_held(parts) and not going.done():  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0)
            await parts.store.put_manifest(MODEL, between)
        held = parts.ledger.tags.held(MODEL)
        assert (meant(parts), held and held.digest) == (old.digest, old.digest)
        assert known(parts) == [between.digest, new.digest]


async def test_no_room_is_made_at_the_cost_of_the_tag(tmp_path: Path) -> None:
    """Neither of what it means nor of what it shall mean; where there is none, nothing changes."""
    async with running_fake_registry() as fake:
        async with mirrored(tmp_path, fake) as (mirror, _):
            old, new = await pulled(mirror.parts, fake, 1, 2)
            await mirror.parts.store.drop_loose([old.layers[0].digest])
        async with mirrored(tmp_path, fake, cache__max_size=SIZE * 3 // 2) as (mirror, client):
            with pytest.raises(StoreFull):
                await back(mirror.parts)
            assert (meant(mirror.parts), await served(client)) == (new.digest, new.digest)
        async with mirrored(tmp_path, fake, cache__max_size=SIZE * 5 // 2) as (mirror, client):
            await back(mirror.parts)
            assert (meant(mirror.parts), await served(client)) == (old.digest, old.digest)


async def test_blobs_that_are_wanted_stay(tmp_path: Path) -> None:
    """Between two steps of a rollback nothing names them."""
    old, _ = await two(tmp_path)
    loose = old.layers[0].digest
    async with parts_of(tmp_path, cache__loose_retention=0) as parts:
        with parts.store.blobs.wanting([loose]), parts.store.blobs.wanting([loose]):
            assert await parts.store.drop_loose([loose]) == {}
            assert not (await parts.keeper.plan()).rows
        assert [row.digest for row in (await parts.keeper.plan()).rows] == [loose]
        assert await parts.store.drop_loose([loose])


async def test_what_a_start_completes_is_known_too(tmp_path: Path) -> None:
    """A mirror that died between the last blob and the name: the next start gives it, and remembers the former."""
    _, new = await two(tmp_path)
    newest = manifest_of(b"newest")
    async with parts_of(tmp_path) as parts:
        await parts.store.put_manifest(MODEL, newest)
        publish(parts.store.layout, b"newest")
        assert meant(parts) is None
    (tmp_path / "state" / "mirror.db").unlink()
    async with parts_of(tmp_path) as parts:
        assert (meant(parts), known(parts)) == (newest.digest, [new.digest])


async def test_the_store_tells_what_is_replaced(tmp_path: Path) -> None:
    """Once, with the bytes; a model that comes for the first time, or again, replaces nothing."""
    heard: list[Any] = []
    async with opened(tmp_path, heard) as store:
        old = await keep(store, MODEL, b"old")
        await store.put_manifest(MODEL, old)
        assert not [one for one in heard if isinstance(one, ModelReplaced)]
        new = await keep(store, MODEL, b"new")
        assert [one for one in heard if isinstance(one, ModelReplaced)] == [ModelReplaced(MODEL, old, new)]


async def test_putting_back_what_is_not_here_changes_nothing(tmp_path: Path) -> None:
    """The store looks for itself; and a full disk leaves the tag alone."""
    async with opened(tmp_path) as store:
        new = await keep(store, MODEL, b"new")
        waiting = manifest_of(b"waiting")
        await store.put_manifest(MODEL, waiting)
        assert not await store.put_back(MODEL, manifest_of(b"never here"))
        assert [one.digest for shelf in (store.complete, store.staged) for one in shelf] == [new.digest, waiting.digest]


async def test_a_disk_that_takes_nothing_leaves_all_as_it_was(tmp_path: Path) -> None:
    """The tag, and what is known of it."""
    _, new = await two(tmp_path)
    (tmp_path / "state" / "staged" / MODEL.host).write_bytes(b"in the way")
    async with parts_of(tmp_path) as parts:
        before = parts.ledger.tags.meanings(MODEL)
        with pytest.raises(StoreFull):
            await back(parts)
        assert (meant(parts), parts.ledger.tags.meanings(MODEL)) == (new.digest, before)
    async with parts_of(tmp_path) as parts:
        assert parts.ledger.tags.meanings(MODEL) == before


POINTS = [(f"write.{step}", times) for times in (1, 2) for step in ("begun", "durable", "named", "done")]


@pytest.mark.parametrize(("point", "times"), [*POINTS, ("unshelve.unlinked", 1), ("unshelve.folder", 1), ("none", 1)])
async def test_killed_on_the_way_the_tag_means_the_one_or_the_other(point: str, times: int, tmp_path: Path) -> None:
    """And is held exactly where it was put; both stay known, so that it can be tried again."""
    old, new = await two(tmp_path)
    ended = await run(sys.executable, "-m", "tests.crash_rollback", str(tmp_path), point, str(times))
    assert (ended.code, ended.out) == ((0, "the end\n") if point == "none" else (-signal.SIGKILL, "")), ended.err
    async with parts_of(tmp_path) as parts:
        now, held = meant(parts), parts.ledger.tags.held(MODEL)
        assert now == (new.digest if (point, times) in POINTS[:2] else old.digest)
        assert (held.digest if held else None) == (old.digest if now == old.digest else None)
        assert known(parts) == [new.digest if now == old.digest else old.digest]
        await back(parts, old if now == new.digest else new)


async def test_what_is_replaced_is_written_down_before_it_is(tmp_path: Path) -> None:
    """Of a model that replaced none, as the one before had gone for room, nothing else would be known after a kill."""
    old, new = await two(tmp_path)
    async with parts_of(tmp_path) as parts:
        await parts.store.remove(MODEL, Reason.SIZE, "a test")
        newest = await keep(parts.store, MODEL, b"newest")
        await parts.store.arrived(publish(parts.store.layout, b"new" * 999))
        assert known(parts) == [new.digest, old.digest]
    ended = await run(sys.executable, "-m", "tests.crash_rollback", str(tmp_path), "write.named", "2")
    assert ended.code == -signal.SIGKILL, ended.err
    async with parts_of(tmp_path) as parts:
        assert (meant(parts), known(parts)) == (new.digest, [newest.digest, old.digest])
