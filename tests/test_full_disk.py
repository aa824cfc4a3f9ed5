"""Promise 5 on a file system that is really full, or really read-only."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.db import Ledger, open_database
from mirror.errors import StoreFull, StoreUnusable
from mirror.events import Events
from mirror.store import Layout, Partial, Store, StoreLock
from mirror.values import ByteRange, Digest, RangeSet
from tests.disks import fill_up, read_only, small_disk, writable
from tests.stored import CONFIG, NAME, WEIGHTS, files, keep, manifest_of, opened, problems, publish
from tests.support import eventually

BIG = b"x" * (8 << 20)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    with small_disk(tmp_path / "small") as place:
        yield place


async def test_a_blob_larger_than_the_room_is_not_kept(small: Path) -> None:
    """Promise 5: what fits was written and stays recorded; the bytes can still be passed through."""
    async with opened(small) as store:
        with pytest.raises(StoreFull, match="no room"):
            store.room.promise({Digest.of(BIG): len(BIG)})
        partial = Partial.open(store.layout, Digest.of(BIG), len(BIG))
        with pytest.raises(StoreFull, match="No space left"):
            partial.write(0, BIG)
        partial.drop()
        partial.close()
        store.room.promise({Digest.of(BIG): 2 << 20}).close()
        assert files(store.layout.state) == {"lock"}


async def test_on_a_full_disk_what_is_there_is_served_and_can_be_removed(small: Path) -> None:
    """Promise 5: service goes on, nothing half-written is left, and removing makes room again."""
    async with opened(small) as store:
        old = await keep(store, NAME, WEIGHTS)
        partial = Partial.open(store.layout, Digest.of(b"abc"), 3)
        fill_up(small)
        with pytest.raises(StoreFull):
            await store.put_manifest(NAME, manifest_of(b"x" * 9000, b"y" * 9000))
        with pytest.raises(StoreFull):
            await store.put_small_blob(b"z" * 9000)
        with pytest.raises(StoreFull):
            partial.write(0, b"abc")
        with pytest.raises(StoreFull):
            partial.record(RangeSet([ByteRange(0, 3)]))
        partial.drop()
        partial.close()
        found = store.find(NAME)
        assert found is not None
        assert store.read(found) == old
        assert files(store.layout.temporary) == set()
        assert problems(store.layout) == []
        assert await store.remove(NAME) == len(WEIGHTS) + len(CONFIG)

        async def has_room() -> bool:
            return os.statvfs(small).f_bavail * os.statvfs(small).f_frsize >= len(WEIGHTS)

        await eventually(has_room)  # a blob loses its name at once, and its bytes in a thread
        await keep(store, NAME, b"small")


async def test_on_a_full_disk_the_store_opens(small: Path) -> None:
    """Promise 5: a restart must not be what ends the service."""
    async with opened(small) as store:
        await keep(store, NAME, WEIGHTS)
        await store.put_manifest(NAME.with_tag("staged"), manifest_of(b"ab"))
        await keep(store, NAME.with_tag("broken"), b"other")
        publish(store.layout, b"ab")
        store.layout.blob(Digest.of(b"other")).unlink()
        store.lock.release()
        (store.layout.state / "lock").unlink()
    fill_up(small)
    async with opened(small) as store:
        assert store.complete.find(NAME) is not None
        assert store.complete.find(NAME.with_tag("broken")) is None
        assert problems(store.layout) == []


async def test_a_lock_on_a_full_disk_says_nothing_old(small: Path) -> None:
    """The address of a former server would lead commands astray."""
    lock = small / "lock"
    lock.write_bytes(b"")
    fill_up(small)
    taken = StoreLock(lock, "x" * 5000).take()
    assert lock.read_bytes() == b""
    taken.release()


async def test_a_store_that_becomes_read_only_changes_nothing_and_serves_on(small: Path) -> None:
    """Promises 4 and 5: what could not be removed is still known, so its blobs are not dropped for another model."""
    async with opened(small) as store:
        manifest = await keep(store, NAME, WEIGHTS)
        assert store.problem() is None
        store.lock.release()  # a file open for writing keeps mount from doing what a failing disk does
        read_only(small)
        for change in (
            store.remove(NAME),
            store.put_manifest(NAME, manifest_of(b"new")),
            store.put_small_blob(b"small"),
        ):
            with pytest.raises(StoreFull, match="Read-only"):
                await change
        with pytest.raises(StoreFull, match="Read-only"):
            Partial.open(store.layout, Digest.of(b"abc"), 3)
        assert "Read-only" in (store.problem() or "")
        found = store.find(NAME)
        assert found is not None
        assert store.read(found) == manifest
        with store.blobs.open(Digest.of(WEIGHTS)) or pytest.fail("it is there") as blob:
            assert os.pread(blob.fd, len(WEIGHTS), 0) == WEIGHTS
        writable(small)
        assert await store.remove(NAME) == len(WEIGHTS) + len(CONFIG)
        assert files(store.layout.blobs) == set()


async def test_a_read_only_store_is_refused_at_start(small: Path) -> None:
    """Nothing could ever be kept; the user meant another folder."""
    async with opened(small):
        pass
    read_only(small)
    with pytest.raises(StoreUnusable, match="cannot"):
        await Store.open(small / "store", small / "state", Events(), holder="x")


@pytest.mark.parametrize("apart", ["state", "store", "store/manifests", "store/blobs", "state/partial"])
def test_store_and_state_on_different_file_systems_are_refused(tmp_path: Path, small: Path, apart: str) -> None:
    """Promise 1: nothing can be renamed from one to the other, and a copy is not atomic."""
    (small / apart).mkdir(parents=True)
    (tmp_path / apart).parent.mkdir(exist_ok=True)
    (tmp_path / apart).symlink_to(small / apart)
    with pytest.raises(StoreUnusable, match="same file system"):
        Layout(tmp_path / "store", tmp_path / "state").make()


async def test_on_a_full_disk_the_database_is_in_memory(small: Path) -> None:
    """Else not even the command that makes room would start."""
    file = small / "mirror.db"
    await (await open_database(None, file)).dispose()
    fill_up(small)
    engine = await open_database(None, file)
    assert engine.url.database == ":memory:"
    ledger = Ledger(engine)
    await ledger.load()
    ledger.used(NAME)
    await ledger.flush()
    await engine.dispose()
