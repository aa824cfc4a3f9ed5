"""The store's promises while it is open: blobs first and manifest last, on removal manifest first."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from mirror.errors import DigestMismatch, StoreBusy, StoreFull, StoreUnusable
from mirror.events import Event, Events, ModelRemoved, ModelStored, Reason
from mirror.store import Partial, Store
from mirror.values import Digest, Manifest, ModelName
from tests.stored import (
    CONFIG,
    NAME,
    WEIGHTS,
    described,
    digests,
    files,
    keep,
    manifest_of,
    opened,
    problems,
    publish,
)

TINY = "registry.ollama.ai/library/tiny/latest"


async def test_only_proven_bytes_are_published(tmp_path: Path) -> None:
    """Promise 1: wrong bytes raise DigestMismatch and leave nothing in blobs/."""
    async with opened(tmp_path) as store:
        partial = Partial.open(store.layout, Digest.of(WEIGHTS), len(WEIGHTS))
        partial.write(0, WEIGHTS[:-1] + b"?")
        partial.advance(len(WEIGHTS))
        with pytest.raises(DigestMismatch):
            partial.publish()
        partial.close()
        assert files(store.layout.blobs) == set()


async def test_a_manifest_is_complete_only_when_every_blob_is_there(tmp_path: Path) -> None:
    """Promise 2: until then it is staged, where no Ollama looks; the last blob to arrive promotes it."""
    heard: list[Event] = []
    async with opened(tmp_path, heard) as store:
        manifest = manifest_of(WEIGHTS, b"licence")
        await store.put_manifest(NAME, manifest)
        for content in (CONFIG, WEIGHTS, b"licence"):
            found = store.find(NAME)
            assert found is not None
            assert store.read(found) == manifest
            assert (files(store.layout.manifests), files(store.layout.staged)) == (set(), {TINY})
            assert store.missing(found)
            await store.arrived(publish(store.layout, content))
        assert (files(store.layout.manifests), files(store.layout.staged)) == ({TINY}, set())
        assert heard == [ModelStored(NAME, manifest.digest, manifest.size)]
        assert problems(store.layout) == []


async def test_a_manifest_whose_blobs_are_all_here_is_complete_at_once(tmp_path: Path) -> None:
    """Promise 2: nothing would arrive that could promote it later."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        await store.put_manifest(NAME.with_tag("again"), manifest_of(WEIGHTS))
        assert len(store.complete) == 2
        assert len(store.staged) == 0


async def test_a_blob_of_another_size_than_the_manifest_says_is_not_the_one(tmp_path: Path) -> None:
    """Promise 2: a client would refuse it."""
    async with opened(tmp_path) as store:
        manifest = manifest_of(layers=[described(WEIGHTS, size=5)], config=None)
        await store.put_manifest(NAME, manifest)
        await store.arrived(publish(store.layout, WEIGHTS))
        assert files(store.layout.manifests) == set()


async def test_removal_takes_the_manifest_and_the_blobs_nothing_else_names(tmp_path: Path) -> None:
    """Promise 4: a blob that another model names, complete or staged, stays."""
    heard: list[Event] = []
    async with opened(tmp_path, heard) as store:
        await keep(store, NAME, WEIGHTS, b"shared", b"wanted")
        await keep(store, NAME.with_tag("other"), b"shared")
        await store.put_manifest(NAME.with_tag("staged"), manifest_of(b"wanted", b"not here"))
        assert await store.remove(ModelName.parse("TINY")) == len(WEIGHTS)
        assert files(store.layout.blobs) == digests([b"shared", b"wanted", CONFIG])
        assert problems(store.layout) == []
        assert heard[-1] == ModelRemoved(NAME, len(WEIGHTS), Reason.ASKED, "somebody asked for it")
        assert await store.remove(NAME) is None


async def test_an_open_blob_stays_readable_when_its_model_is_removed(tmp_path: Path) -> None:
    """Promise 4: the reader gets its bytes, and the file goes with the last reader."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        with store.blobs.open(Digest.of(WEIGHTS)) or pytest.fail("it is there") as blob:
            await store.remove(NAME)
            assert os.pread(blob.fd, len(WEIGHTS), 0) == WEIGHTS
        assert files(store.layout.blobs) == set()


@pytest.mark.parametrize("tag", ["latest", "other"])
async def test_a_blob_removed_under_a_reader_and_named_again_stays(tmp_path: Path, tag: str) -> None:
    """Promise 2: the model pulled again is complete, also after the old reader has left."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        with store.blobs.open(Digest.of(WEIGHTS)) or pytest.fail("it is there"):
            await store.remove(NAME)
            await store.put_manifest(NAME.with_tag(tag), manifest_of(WEIGHTS))
            await store.arrived(publish(store.layout, CONFIG))
        assert len(store.complete) == 1
        assert problems(store.layout) == []


async def test_a_new_manifest_waits_beside_the_old_one(tmp_path: Path) -> None:
    """Promise 2: the old model stays whole for an Ollama on this tree, while what is found is the newer."""
    async with opened(tmp_path) as store:
        old = await keep(store, NAME, b"old")
        new = manifest_of(b"new")
        await store.put_manifest(NAME, new)
        found, whole = store.find(NAME), store.complete.find(NAME)
        assert found is not None
        assert whole is not None
        assert (found.digest, whole.digest) == (new.digest, old.digest)
        assert store.layout.manifest(NAME).read_bytes() == old.raw
        await store.arrived(publish(store.layout, b"new"))
        assert store.layout.manifest(NAME).read_bytes() == new.raw
        assert files(store.layout.staged) == set()
        assert store.by_digest(old.digest) is None


async def test_a_tag_that_moves_back_finds_the_complete_model(tmp_path: Path) -> None:
    """What was waited for is not wanted any more."""
    async with opened(tmp_path) as store:
        old = await keep(store, NAME, b"old")
        await store.put_manifest(NAME, manifest_of(b"new"))
        await store.put_manifest(NAME, old)
        found = store.find(NAME)
        assert found is not None
        assert found.digest == old.digest
        assert files(store.layout.staged) == set()


async def test_the_same_manifest_again_writes_nothing(tmp_path: Path) -> None:
    """Every check of a tag puts it again; its time on disk is the model's."""
    async with opened(tmp_path) as store:
        manifest = await keep(store, NAME, WEIGHTS)
        os.utime(store.layout.manifest(NAME), (1, 1))
        await store.put_manifest(ModelName.parse("Tiny"), manifest)
        assert store.layout.manifest(NAME).stat().st_mtime == 1
        assert len(store.staged) == 0


async def test_a_name_in_other_letters_is_the_same_model(tmp_path: Path) -> None:
    """Ollama compares without letter case, so one model must not have two files."""
    async with opened(tmp_path) as store:
        await keep(store, ModelName.parse("Tiny"), b"old")
        new = await keep(store, ModelName.parse("tINY"), b"new")
        found = store.find(NAME)
        assert found is not None
        assert (found.digest, found.name.model) == (new.digest, "Tiny")
        assert files(store.layout.manifests) == {TINY.replace("tiny", "Tiny")}


async def test_a_host_may_have_a_port(tmp_path: Path) -> None:
    """Its folder has the colon in its name, as Ollama's has."""
    name = ModelName.parse("localhost:5000/library/tiny")
    async with opened(tmp_path) as store:
        await keep(store, name, WEIGHTS)
    async with opened(tmp_path) as store:
        assert [one.name for one in store.complete] == [name]
        assert await store.remove(name) == len(WEIGHTS) + len(CONFIG)


async def test_manifests_are_found_by_digest_wherever_they_are(tmp_path: Path) -> None:
    """Complete, staged, or kept as a blob because an index names it."""
    async with opened(tmp_path) as store:
        complete = await keep(store, NAME, WEIGHTS)
        staged = manifest_of(b"not here")
        child = manifest_of(b"child")
        await store.put_manifest(NAME.with_tag("staged"), staged)
        assert await store.put_small_blob(child.raw) == child.digest
        for manifest in (complete, staged, child):
            assert store.by_digest(manifest.digest) == manifest
        for digest in (Digest.of(b"unknown"), Digest.of(CONFIG), Digest.of(WEIGHTS)):
            assert store.by_digest(digest) is None


async def test_an_index_is_complete_when_its_manifests_are_kept_as_blobs(tmp_path: Path) -> None:
    """Its children have no tag of their own, and must not be dropped."""
    child = manifest_of(WEIGHTS)
    index = manifest_of(manifests=[described(child.raw)], layers=[], config=None)
    async with opened(tmp_path) as store:
        await store.put_manifest(NAME, index)
        await store.put_small_blob(child.raw)
        await store.put_small_blob(child.raw)
        assert files(store.layout.manifests) == {TINY}
        assert problems(store.layout) == []


async def test_a_small_blob_does_not_disturb_the_fill_of_the_same_digest(tmp_path: Path) -> None:
    """Promise 1: a fill that gets wrong bytes must not write them into what is already proven."""
    child = manifest_of(b"child").raw
    async with opened(tmp_path) as store:
        partial = Partial.open(store.layout, Digest.of(child), len(child))
        partial.write(0, b"first bytes")
        await store.put_small_blob(child)
        partial.write(0, b"wrong bytes")
        partial.close()
        assert store.layout.blob(Digest.of(child)).read_bytes() == child


async def test_the_size_of_a_blob_is_known_from_any_manifest(tmp_path: Path) -> None:
    """A fill can then begin without asking the upstream."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        await store.put_manifest(NAME, manifest_of(b"1234567"))
        sizes = [store.size_of(Digest.of(one), NAME) for one in (WEIGHTS, b"1234567", b"unknown")]
        assert sizes == [len(WEIGHTS), 7, None]


async def test_a_caller_who_is_cancelled_leaves_disk_and_index_in_agreement(tmp_path: Path) -> None:
    """Promise 2: a manifest on the disk that the index does not know would not keep its blobs from being dropped."""
    for turns in range(12):
        (tmp_path / str(turns)).mkdir()
        async with opened(tmp_path / str(turns)) as store:
            for content in (WEIGHTS, CONFIG):
                publish(store.layout, content)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(store.put_manifest(NAME, manifest_of(WEIGHTS)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
            for shelf, base in ((store.complete, store.layout.manifests), (store.staged, store.layout.staged)):
                assert files(base) == ({TINY} if shelf.find(NAME) else set())
            await store.put_manifest(NAME, manifest_of(WEIGHTS))
            assert (len(store.complete), len(store.staged)) == (1, 0)
            assert problems(store.layout) == []


async def test_changes_at_the_same_time_happen_in_a_row(tmp_path: Path) -> None:
    """Promise 2, whatever comes together: pulls, removals, arrivals of models that share blobs."""
    async with opened(tmp_path) as store, asyncio.TaskGroup() as group:
        for number in range(30):
            name, layer = NAME.with_tag(f"t{number % 3}"), f"layer {number % 2}".encode()
            group.create_task(keep(store, name, layer))
            group.create_task(store.remove(name))
    async with opened(tmp_path) as store:
        assert problems(store.layout) == []


async def test_a_second_process_is_told_who_has_the_store(tmp_path: Path) -> None:
    """Two writers would drop each other's blobs."""
    async with opened(tmp_path) as store:
        with pytest.raises(StoreBusy, match="a test"):
            await Store.open(store.layout.root, store.layout.state, Events(), holder="another")
        assert store.problem() is None
    async with opened(tmp_path):
        pass


async def test_a_store_is_made_only_for_who_wants_one(tmp_path: Path) -> None:
    """A command with a mistyped folder must not leave an empty store there."""
    with pytest.raises(StoreUnusable, match="no store"):
        await Store.open(tmp_path / "store", tmp_path / "state", Events(), holder="x", create=False)
    assert list(tmp_path.iterdir()) == []


async def test_a_host_too_long_for_a_folder_is_not_kept(tmp_path: Path) -> None:
    """Promise 5: Ollama's grammar allows 350 bytes, a file system 255; the bytes are passed through then."""
    async with opened(tmp_path) as store:
        with pytest.raises(StoreFull, match="too long"):
            await store.put_manifest(ModelName.parse(f"{'h' * 350}/ns/m"), manifest_of(WEIGHTS))
        assert (len(store.staged), files(store.layout.state) - {"lock"}) == (0, set())


async def test_a_hostile_manifest_leaves_nothing_that_stops_the_next_start(tmp_path: Path) -> None:
    """It is parsed before it is kept."""
    async with opened(tmp_path) as store:
        with suppress(ValueError):
            await store.put_manifest(NAME, Manifest.parse(b'{"layers": [{"digest": "../../x", "size": 1}]}'))
    async with opened(tmp_path) as store:
        assert (len(store.staged), store.problems) == (0, [])
