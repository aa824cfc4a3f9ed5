"""Room for an import: asked for in time, given back, and made by removing others, maybe what the import needs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mirror.bundles import Bundle, import_folder, import_tar, save
from mirror.errors import BadBundle, BrokenStore, StoreFull
from mirror.store import Store
from mirror.values import Digest
from tests.bundled import (
    OTHER,
    Counted,
    blob,
    entry,
    everything,
    good,
    in_chunks,
    manifest,
    opened,
    silent,
    take,
    tar,
    tar_of,
)
from tests.disks import small_disk
from tests.stored import CONFIG, NAME, WEIGHTS, keep, manifest_of, problems

BIG = b"x" * (8 << 20)
SIZES = {Digest.of(one): len(one) for one in (WEIGHTS, CONFIG)}
NOT_WHAT_THEY_SAY = b"""{"format": 1, "models": [], "left_out": [], "blobs": [{"digest": "%s", "size": 7}]}"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    with small_disk(tmp_path / "small") as place:
        yield place


async def test_room_for_a_bundle_is_asked_for_at_once(tmp_path: Path) -> None:
    """So that it is refused before the first byte was written, and not after an hour."""
    room, raw = Counted(), await good(tmp_path / "a")
    async with opened(tmp_path / "b") as store:
        await import_tar(in_chunks(raw), store, room, silent)
        assert room.asked == [SIZES]
        assert sorted(room.on_disk) == sorted(SIZES)
        assert room.closed == 1
        await import_tar(in_chunks(raw), store, room, silent)
        assert len(room.asked) == 1


async def test_room_for_another_tar_is_asked_for_blob_by_blob(tmp_path: Path) -> None:
    """Nobody knows what is still to come."""
    room = Counted()
    async with opened(tmp_path) as store:
        await import_tar(in_chunks(tar(blob(WEIGHTS), blob(CONFIG), manifest())), store, room, silent)
    assert room.asked == [{digest: size} for digest, size in SIZES.items()]
    assert (room.on_disk, room.closed) == ([*SIZES], 2)


async def test_a_bundle_that_lies_about_sizes_gets_no_room_by_it(tmp_path: Path) -> None:
    """Room that was not asked for would be somebody else's."""
    room = Counted()
    lies = entry("mirror-bundle.json", NOT_WHAT_THEY_SAY % str(Digest.of(WEIGHTS)).encode())
    async with opened(tmp_path) as store:
        with pytest.raises(BadBundle, match="disagrees"):
            await import_tar(in_chunks(tar(lies, blob(WEIGHTS), blob(CONFIG), manifest())), store, room, silent)
    assert room.asked == [{Digest.of(WEIGHTS): 7}, *({digest: size} for digest, size in SIZES.items())]
    assert room.closed == 3


async def test_room_for_a_folder_is_asked_for_at_once(tmp_path: Path) -> None:
    """All sizes are known; what is here needs none."""
    room = Counted()
    async with opened(tmp_path / "a") as store:
        await keep(store, NAME, WEIGHTS)
    async with opened(tmp_path / "b") as store:
        await keep(store, OTHER, b"other")
        await import_folder(tmp_path / "a" / "store", store, room, silent)
    assert (room.asked, room.on_disk, room.closed) == ([{Digest.of(WEIGHTS): len(WEIGHTS)}], [Digest.of(WEIGHTS)], 1)


async def test_on_a_full_disk_nothing_is_left(tmp_path: Path, small: Path) -> None:
    """Promise 5: both when the room is counted and when it turns out smaller."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, b"small", BIG)
        raw = await tar_of(Bundle.of(store, [NAME]))
    async with opened(small) as store:
        await keep(store, OTHER, b"here")
        before = everything(small)
        with pytest.raises(StoreFull, match="no room"):
            await take(store, raw)
        assert everything(small) == before
        with pytest.raises(StoreFull, match="No space left"):
            await import_tar(in_chunks(raw), store, Counted(), silent)
        assert everything(small) == before


async def test_a_bundle_that_does_not_fit_is_gone_on_with_elsewhere(tmp_path: Path, small: Path) -> None:
    """A full stick is a clear sentence, and what is on it is right."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, b"small", BIG)
        bundle = Bundle.of(store, [NAME])
        with pytest.raises(BadBundle, match=r"cannot write .*: No space left"):
            await save(small / "x.tar", bundle.members, bundle.pieces, silent)
    assert everything(small).keys() == {"x.tar.partial"}


class Evicting(Counted):
    """Room that is made by removing a model of the store, as the keeper does."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    async def __call__(self, blobs: Mapping[Digest, int]) -> Counted:
        """Reserve."""
        await self._store.remove(OTHER)
        await self._store.trash.emptied()
        return await super().__call__(blobs)


async def test_a_blob_that_goes_to_make_room_is_brought_back(tmp_path: Path) -> None:
    """It was here when the input was read past it; the input comes only once."""
    async with opened(tmp_path) as store:
        await keep(store, OTHER, WEIGHTS)
        raw = tar(blob(WEIGHTS), blob(CONFIG), blob(b"new"), manifest(manifest_of(WEIGHTS, b"new")))
        imported = await import_tar(in_chunks(raw), store, Evicting(store), silent)
        assert (imported.new, imported.new_bytes, imported.here) == (1, 3, 2)
        assert [one.name for one in store.complete] == [NAME]
        assert problems(store.layout) == []
        assert not [*store.layout.temporary.iterdir()]
        assert store.room.proven == sum(size for _, size in store.blobs)


async def test_a_blob_that_was_found_damaged_meanwhile_is_not_brought_back(tmp_path: Path) -> None:
    """Only what is proven gets a blob's name; a second import brings it from the input."""
    async with opened(tmp_path) as store:
        await keep(store, OTHER, WEIGHTS)
        store.layout.blob(Digest.of(WEIGHTS)).write_bytes(WEIGHTS[::-1])
        raw = tar(blob(WEIGHTS), blob(CONFIG), blob(b"new"), manifest(manifest_of(WEIGHTS, b"new")))
        with pytest.raises(BrokenStore, match="import once more"):
            await import_tar(in_chunks(raw), store, Evicting(store), silent)
        assert not [*store.complete]
        assert (await take(store, raw)).new == 3
        assert problems(store.layout) == []
