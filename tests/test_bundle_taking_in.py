"""All of it or nothing, however an import ends; and never more in memory than a piece."""

import asyncio
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from mirror.bundles import Bundle, import_folder, import_tar, save
from mirror.bundles.needs import needed
from mirror.errors import BadBundle
from mirror.store import Store
from mirror.values import Digest, Manifest
from tests.bundled import (
    Counted,
    blob,
    everything,
    good,
    index_of,
    manifest,
    opened,
    reserving,
    silent,
    take,
    tar,
    tree,
)
from tests.stored import CONFIG, NAME, WEIGHTS, keep, manifest_of, problems

BIG = b"x" * (8 << 20)


async def stalling(raw: bytes, reached: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """An input that says nothing more after these bytes."""
    yield raw
    reached.set()
    await asyncio.Event().wait()


@pytest.mark.parametrize("left", [100, 11_000, 30_000])
async def test_a_cancelled_import_leaves_nothing(tmp_path: Path, left: int) -> None:
    """Ctrl-C, and a client that closes its connection."""
    raw, reached, room = await good(tmp_path / "a"), asyncio.Event(), Counted()
    async with opened(tmp_path / "b") as store:
        before = everything(tmp_path / "b")
        async with asyncio.TaskGroup() as group:
            importing = group.create_task(import_tar(stalling(raw[:-left], reached), store, room, silent))
            await reached.wait()
            importing.cancel()
        assert everything(tmp_path / "b") == before
        assert room.closed == len(room.asked) == 1


async def test_a_cancelled_folder_import_leaves_nothing(tmp_path: Path) -> None:
    """Between any two steps of the way."""
    async with opened(tmp_path / "a") as store:
        await keep(store, NAME, BIG, WEIGHTS)
    async with opened(tmp_path / "b") as store:
        before = everything(tmp_path / "b")
        for after in range(4):
            seen: list[int] = []
            with pytest.raises(asyncio.CancelledError):
                await cancelled_after(after, tmp_path / "a" / "store", store, seen)
            assert len(seen) == after + 1
            assert everything(tmp_path / "b") == before


async def cancelled_after(steps: int, folder: Path, store: Store, seen: list[int]) -> None:
    """Import, and be cancelled after some steps of progress."""

    def report(done: int, total: int | None) -> None:
        seen.append(done)
        if len(seen) > steps:
            importing.cancel()

    async with asyncio.TaskGroup() as group:
        importing = group.create_task(import_folder(folder, store, Counted(), report))
    await importing


async def test_what_the_input_raises_goes_through_and_nothing_is_left(tmp_path: Path) -> None:
    """A reset connection is for whoever holds it to explain."""
    raw = await good(tmp_path / "a")

    async def broken() -> AsyncGenerator[bytes, None]:
        yield raw[:-11_000]
        raise ConnectionResetError

    async with opened(tmp_path / "b") as store:
        before = everything(tmp_path / "b")
        with pytest.raises(ConnectionResetError):
            await import_tar(broken(), store, Counted(), silent)
        assert everything(tmp_path / "b") == before


@pytest.mark.parametrize("point", ["import.staged", "import.checked"])
async def test_a_kill_before_the_end_leaves_nothing(tmp_path: Path, point: str) -> None:
    """Promise 3: what is staged has no name, and the next start removes it."""
    raw = await good(tmp_path / "a")
    async with opened(tmp_path / "b"):
        before = everything(tmp_path / "b").keys()
    be_killed(tmp_path / "b", raw, point)
    async with opened(tmp_path / "b") as store:
        assert everything(tmp_path / "b").keys() == before
        assert (await take(store, raw)).new == 2
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("point", ["adopt.named", "adopt.durable", "write.durable", "write.named", "adopt.model"])
async def test_a_kill_at_the_end_leaves_nothing_false(tmp_path: Path, point: str) -> None:
    """Promises 1 to 3: a proven blob may be there, a model only whole; and the import can be done again."""
    raw = await good(tmp_path / "a")
    be_killed(tmp_path / "b", raw, point)
    async with opened(tmp_path / "b") as store:
        assert problems(store.layout) == []
        assert store.problems == []
        await take(store, raw)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def be_killed(folder: Path, raw: bytes, point: str) -> None:
    """Run an import that dies at a point."""
    command = [sys.executable, "-m", "tests.bundled", str(folder), point]
    done = subprocess.run(command, check=False, input=raw, capture_output=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == -9, done.stderr.decode()


async def test_models_and_blobs_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held in memory is bounded."""
    monkeypatch.setattr("mirror.bundles.tar_import.MAX_BLOBS", 1)
    monkeypatch.setattr("mirror.bundles.bundle.MAX_BLOBS", 1)
    async with opened(tmp_path / "a") as store:
        await keep(store, NAME, WEIGHTS)
        with pytest.raises(BadBundle, match="2 blobs are too many"):
            Bundle.of(store, [NAME])
    async with opened(tmp_path / "b") as store:
        with pytest.raises(BadBundle, match="more than 1 blobs"):
            await take(store, tar(blob(WEIGHTS), blob(CONFIG), manifest()))


def test_an_index_of_indexes_without_end_is_refused() -> None:
    """Each names the next one."""
    kept: dict[Digest, Manifest] = {}
    last = manifest_of(WEIGHTS)
    for _ in range(1000):
        kept[last.digest] = last
        last = index_of(last)
    assert len([*needed(kept[last.children[0].digest], kept.get)]) == 1001
    with pytest.raises(BadBundle, match="more than 1000 manifests"):
        [*needed(last, kept.get)]


def test_a_manifest_that_two_indexes_name_is_followed_once() -> None:
    """Or a few of them would take for ever."""
    leaf = manifest_of(WEIGHTS)
    kept = {leaf.digest: leaf}
    for _ in range(40):
        left, right = index_of(leaf), index_of(leaf, leaf)
        kept |= {left.digest: left, right.digest: right}
        leaf = index_of(left, right)
        kept[leaf.digest] = leaf
    assert len({one.digest for one in needed(leaf, kept.get)}) == len([*needed(leaf, kept.get)]) == 122


@pytest.mark.timeout(120)
async def test_memory_does_not_grow_with_a_blob(tmp_path: Path) -> None:
    """Blobs have forty gigabytes, machines have not."""
    most = 20 << 20  # a manifest may have 16 MB, and is read so
    async with opened(tmp_path / "a") as store:
        await keep(store, NAME, bytes(64 << 20))
        tracemalloc.start()
        try:
            bundle = Bundle.of(store, [NAME])
            await save(tmp_path / "x.tar", bundle.members, bundle.pieces, silent)
            async with opened(tmp_path / "b") as other:
                await import_tar(read(tmp_path / "x.tar"), other, reserving(other), silent)
            async with opened(tmp_path / "c") as other:
                await import_folder(tmp_path / "a" / "store", other, reserving(other), silent)
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()


async def read(path: Path) -> AsyncGenerator[bytes, None]:
    """A file in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
