"""One folder for a mirror and an unmodified Ollama, both at work (cache.shared_with_ollama)."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.app import RunningMirror, parts
from mirror.events import BlobDamaged, Event, Events, ModelRemoved, ModelStored, Reason
from mirror.store import ManifestShelf, Store
from mirror.store.rescan import Rescan
from mirror.values import Digest, Manifest, ModelName
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.ollama_tree import age, blob, manifest_path, ollama_deletes, ollama_pulls
from tests.stored import CONFIG, WEIGHTS, digests, files, keep, made, manifest_of, opened, problems, publish
from tests.support import Machine, blob_path, eventually, mirrored

THEIRS, OURS = ModelName.parse("theirs"), ModelName.parse("ours")


@asynccontextmanager
async def sharing(folder: Path, heard: list[Event] | None = None) -> AsyncIterator[Store]:
    """A store whose tree an Ollama has too."""
    events = Events()
    if heard is not None:
        events.tap(heard.append)
    store = await Store.open(folder / "store", folder / "state", events, holder="a test", shared=True)
    try:
        yield store
    finally:
        store.close()


@asynccontextmanager
async def beside_ollama(
    folder: Path, fake: FakeRegistry | None = None, **changes: Any
) -> AsyncIterator[tuple[RunningMirror, Machine, Path]]:
    """A mirror in an Ollama's folder, offline where there is no registry; yields it, a client and the folder."""
    (folder / "store").mkdir(exist_ok=True)
    async with running_fake_registry() as other:
        settings = {"cache__shared_with_ollama": True, "offline": fake is None, **changes}
        async with mirrored(folder, fake or other, **settings) as (mirror, client):
            yield mirror, client, folder / "store"


async def listed(client: Machine) -> list[str]:
    """The models that /api/tags has."""
    return [one["name"] for one in json.loads((await client.get("/api/tags")).body)["models"]]


def tag_path(name: ModelName) -> str:
    """The path of a model's manifest."""
    return f"/v2/{name.repository}/manifests/{name.tag}"


async def test_what_ollama_pulls_is_served_at_once_and_listed(tmp_path: Path) -> None:
    """A client that hears of a new model must not wait for a restart, nor for the next look."""
    async with beside_ollama(tmp_path) as (_, client, folder):
        manifest = ollama_pulls(folder, THEIRS, WEIGHTS)
        answer = await client.get(tag_path(THEIRS))
        assert (answer.status, answer.body, answer.cache) == (200, manifest.raw, "HIT")
        answer = await client.get(blob_path(Digest.of(WEIGHTS), THEIRS.repository))
        assert (answer.body, answer.cache) == (WEIGHTS, "HIT")
        assert await listed(client) == ["theirs:latest"]


async def test_what_ollama_does_is_noticed_by_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may ask for the model by its name; lists and limits must know of it all the same."""
    monkeypatch.setattr(parts, "_LOOK_S", 0.02)
    async with beside_ollama(tmp_path) as (_, client, folder):
        for step, expected in ((ollama_pulls, ["theirs:latest"]), (ollama_deletes, [])):
            step(folder, THEIRS, WEIGHTS)

            async def seen(expected: list[str] = expected) -> bool:
                return await listed(client) == expected

            await eventually(seen)


async def test_what_ollama_deletes_is_neither_served_nor_listed(tmp_path: Path) -> None:
    """Manifest first, then the blobs, behind our back; tidying up afterwards finds nothing wrong."""
    async with beside_ollama(tmp_path, cache__max_size=10) as (mirror, client, folder):
        heard: list[Event] = []
        mirror.parts.events.tap(heard.append, ModelRemoved)
        ollama_pulls(folder, THEIRS, WEIGHTS)
        assert (await client.get(tag_path(THEIRS))).status == 200
        ollama_deletes(folder, THEIRS, WEIGHTS, CONFIG)
        assert (await client.get(tag_path(THEIRS))).status == 404
        assert (await client.get(blob_path(Digest.of(WEIGHTS), THEIRS.repository))).status == 404
        assert await listed(client) == []
        assert heard == [ModelRemoved(THEIRS, 0, Reason.ELSEWHERE, "an Ollama removed it")]
        assert (await mirror.parts.keeper.collect()).done == ()
        assert mirror.parts.store.room.proven == 0
        assert (await client.get("/readyz")).status == 200


async def test_a_model_that_ollama_replaces_is_the_new_one(tmp_path: Path) -> None:
    """The old manifest is in memory, and its blobs may be gone."""
    async with beside_ollama(tmp_path) as (_, client, folder):
        ollama_pulls(folder, THEIRS, b"old")
        await client.get(tag_path(THEIRS))
        new = ollama_pulls(folder, THEIRS, b"new")
        assert (await client.get(tag_path(THEIRS))).body == new.raw


async def test_what_ollama_brings_in_is_its_own(tmp_path: Path) -> None:
    """The ledger tells by ModelStored whose a model is; also where upstream then confirms what Ollama pulled."""
    heard: list[Event] = []
    async with sharing(tmp_path, heard) as store:
        manifest = ollama_pulls(store.layout.root, THEIRS, WEIGHTS)
        await store.put_manifest(THEIRS, manifest)
        await keep(store, OURS, WEIGHTS)
        assert {one.name for one in store.complete} == {THEIRS, OURS}
        assert [one.name for one in heard if isinstance(one, ModelStored)] == [OURS]


@pytest.mark.parametrize("drop_theirs", [False, True])
async def test_limits_spare_the_models_of_ollama_unless_told_otherwise(tmp_path: Path, drop_theirs: bool) -> None:
    """Somebody works with them who never asked for a mirror; ours can be fetched again."""
    async with running_fake_registry() as fake:
        fake.add_model("library/ours:latest", {"application/vnd.ollama.image.model": b"o" * 500})
        async with beside_ollama(tmp_path, fake, cache__max_size=1000, cache__drop_ollama_models=drop_theirs) as (
            mirror,
            _,
            folder,
        ):
            await mirror.parts.puller.pull(OURS, lambda _: None)
            ollama_pulls(folder, THEIRS, b"t" * 900, hours_ago=5)
            for path in folder.rglob("*"):
                if path.is_file():
                    age(path, 4 if "theirs" in str(path) else 3)
            done = await mirror.parts.keeper.collect()
            gone = {row.what for row, _ in done.done}
            assert gone == ({"theirs:latest"} if drop_theirs else {"ours:latest"})
            assert manifest_path(folder, THEIRS).exists() != drop_theirs
            assert blob(folder, b"t" * 900).exists() != drop_theirs


async def test_a_model_we_drop_takes_no_blob_younger_than_an_hour(tmp_path: Path) -> None:
    """A pull of Ollama's may have found it there and be about to name it; it goes as a loose one later."""
    async with sharing(tmp_path) as store:
        await keep(store, OURS, WEIGHTS, b"old")
        age(store.layout.blob(Digest.of(b"old")), 2)
        assert await store.remove(OURS) == len(b"old")
        assert files(store.layout.blobs) == digests([WEIGHTS, CONFIG])
        assert await store.drop_loose(map(Digest.of, (WEIGHTS, CONFIG))) == {}
        age(store.layout.blob(Digest.of(WEIGHTS)), 2)
        assert await store.drop_loose([Digest.of(WEIGHTS)]) == {Digest.of(WEIGHTS): len(WEIGHTS)}


async def test_the_plan_knows_what_stays_and_what_is_asked_for_stays_too(tmp_path: Path) -> None:
    """Even of everything: no file younger than an hour, and nothing at all while a pull of Ollama's goes on."""
    async with running_fake_registry() as fake:
        fake.add_model("library/ours:latest", {"application/vnd.ollama.image.model": WEIGHTS})
        async with beside_ollama(tmp_path, fake, cache__max_size=10) as (mirror, _, folder):
            store, keeper = mirror.parts.store, mirror.parts.keeper
            await keep(store, OURS, WEIGHTS)
            made_young = await keeper.plan(everything=True)
            assert made_young.frees == 0
            for content in (WEIGHTS, CONFIG):
                age(blob(folder, content), 2)
            partial = folder / "blobs" / f"{Digest.of(b'coming').filename}-partial"
            partial.write_bytes(b"com")
            assert (await keeper.plan()).rows == ()
            age(partial, 1)
            assert (await keeper.plan()).frees == len(WEIGHTS) + len(CONFIG)


async def test_every_manifest_on_disk_counts_before_a_blob_goes(tmp_path: Path) -> None:
    """Ollama has named it since the last look."""
    async with sharing(tmp_path) as store:
        await keep(store, OURS, WEIGHTS)
        age(store.layout.blob(Digest.of(WEIGHTS)), 2)
        ollama_pulls(store.layout.root, THEIRS, WEIGHTS)
        assert await store.remove(OURS) == 0
        assert problems(store.layout) == []


async def test_nothing_is_dropped_while_the_manifests_cannot_be_read(tmp_path: Path) -> None:
    """Where the disk is away, no manifest names anything; that is no reason to believe that nothing is named."""
    async with sharing(tmp_path) as store:
        await keep(store, OURS, WEIGHTS)
        store.layout.root.rename(tmp_path / "away")
        await store.refresh()
        assert store.complete.find(OURS) is not None
        (tmp_path / "away").rename(store.layout.root)
        assert await store.remove(OURS) == 0


async def test_a_manifest_half_written_is_read_again_and_keeps_its_blobs(tmp_path: Path) -> None:
    """Ollama truncates and writes; and some that it can read we may not."""
    async with sharing(tmp_path) as store:
        manifest = ollama_pulls(store.layout.root, THEIRS, WEIGHTS, hours_ago=2)
        path = manifest_path(store.layout.root, THEIRS)
        path.write_bytes(manifest.raw[:-20])
        await store.refresh()
        assert store.complete.find(THEIRS) is None
        assert await store.drop_loose([Digest.of(WEIGHTS)]) == {}
        path.write_bytes(manifest.raw)
        await store.refresh()
        assert store.complete.find(THEIRS) is not None
        path.write_bytes(b"")
        await store.refresh()
        assert store.complete.find(THEIRS) is not None
        assert await store.drop_loose([Digest.of(WEIGHTS)]) == {}


async def test_a_model_of_ollamas_that_lacks_a_blob_stays_in_its_tree(tmp_path: Path) -> None:
    """It is Ollama's to mend; a client of ours gets the blob from upstream, and so does Ollama then."""
    async with running_fake_registry() as fake:
        fake.add_model("library/theirs:latest", {"application/vnd.ollama.image.model": WEIGHTS})
        manifest = ollama_pulls(tmp_path / "store", THEIRS, WEIGHTS)
        blob(tmp_path / "store", WEIGHTS).unlink()
        async with beside_ollama(tmp_path, fake) as (mirror, client, folder):
            said = "theirs:latest lacks 1 of its blobs; it is fetched again when asked for"
            assert mirror.parts.store.problems == [said]
            assert manifest_path(folder, THEIRS).read_bytes() == manifest.raw
            answer = await client.get(blob_path(Digest.of(WEIGHTS), THEIRS.repository))
            assert answer.body == WEIGHTS
            assert blob(folder, WEIGHTS).read_bytes() == WEIGHTS


async def test_a_damaged_blob_leaves_the_manifest_and_is_served_again_when_ollama_has_it_again(tmp_path: Path) -> None:
    """A model without manifest would be lost to Ollama; one that lacks a blob it pulls again."""
    heard: list[Event] = []
    async with sharing(tmp_path, heard) as store:
        ollama_pulls(store.layout.root, THEIRS, WEIGHTS)
        await store.refresh()
        assert await store.condemn(Digest.of(WEIGHTS)) == [THEIRS]
        assert heard == [BlobDamaged(Digest.of(WEIGHTS), (THEIRS,))]
        assert manifest_path(store.layout.root, THEIRS).exists()
        assert store.open_blob(Digest.of(WEIGHTS)) is None
        ollama_pulls(store.layout.root, THEIRS, WEIGHTS)
        with store.open_blob(Digest.of(WEIGHTS)) or pytest.fail("it is back") as found:
            assert os.pread(found.fd, len(WEIGHTS), 0) == WEIGHTS


async def test_a_folder_that_ollama_left_empty_is_made_again(tmp_path: Path) -> None:
    """At its start it removes every empty folder below manifests/, and that one too."""
    async with sharing(tmp_path) as store:
        store.layout.manifests.rmdir()
        assert store.problem() is not None
        await store.refresh()
        assert store.problem() is None


@pytest.mark.parametrize(
    "name", [f"sha256-{'a' * 64}-partial", f"sha256-{'a' * 64}-partial-12", f"sha256-{'b' * 64}.tmp", "sha256-19283"]
)
@pytest.mark.parametrize("shared", [True, False])
async def test_what_ollama_has_not_finished_is_not_ours(tmp_path: Path, name: str, shared: bool) -> None:
    """It is no problem where an Ollama is at work, it is one elsewhere, and it is touched by nobody."""
    layout = made(tmp_path)
    (layout.blobs / name).write_bytes(b"?")
    age(layout.blobs / name, 1000)
    async with sharing(tmp_path) if shared else opened(tmp_path) as store:
        assert len(problems(store.layout)) == (0 if shared else 1)
        await keep(store, OURS, WEIGHTS)
        await store.remove(OURS)
        assert name in files(store.layout.blobs)


@pytest.mark.parametrize(("root", "file", "folder"), [(0o755, 0o644, 0o755), (0o2775, 0o664, 0o2775)])
async def test_both_can_use_what_either_writes(tmp_path: Path, root: int, file: int, folder: int) -> None:
    """As Ollama makes them; where the root is the group's to write, so is all below, and it is the group's."""
    group = os.getgid() if os.getuid() else 54321
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", -1, group)
    (tmp_path / "store").chmod(root)
    umask = os.umask(0o022)
    try:
        async with sharing(tmp_path) as store:
            await keep(store, OURS, WEIGHTS)
            await store.put_small_blob(b"small")
            staged = tmp_path / "state" / "adopted"
            staged.write_bytes(b"adopted")
            await store.adopt({Digest.of(b"adopted"): staged}, [])
    finally:
        os.umask(umask)
    below = list((tmp_path / "store").rglob("*"))
    assert len(below) == 10
    assert {path.stat().st_mode & 0o7777 for path in below if path.is_file()} == {file}
    assert {path.stat().st_mode & 0o7777 for path in below if path.is_dir()} == {folder}
    if root & 0o020:
        assert {path.stat().st_gid for path in below} == {group}


def test_only_what_has_changed_is_read(tmp_path: Path) -> None:
    """There are thousands, and a look every few seconds."""
    layout = made(tmp_path)
    shelf = ManifestShelf(layout, layout.manifests)
    rescan = Rescan(layout.manifests, shelf)
    ollama_pulls(layout.root, THEIRS, b"one", hours_ago=1)
    rescan.take_in(rescan.look())
    path = manifest_path(layout.root, THEIRS)
    before = path.stat()
    path.write_bytes(manifest_of(b"two").raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert rescan.look().came == ()
    age(path, 0.5)
    [(stored, manifest)] = rescan.look().came
    assert (stored.digest, manifest) == (manifest_of(b"two").digest, manifest_of(b"two"))


def test_what_was_written_twice_within_one_tick_is_read_again(tmp_path: Path) -> None:
    """A clock of a file system may stand still for milliseconds."""
    layout = made(tmp_path)
    shelf = ManifestShelf(layout, layout.manifests)
    rescan = Rescan(layout.manifests, shelf)
    ollama_pulls(layout.root, THEIRS, b"one")
    path = manifest_path(layout.root, THEIRS)
    before = path.stat()
    rescan.take_in(rescan.look())
    path.write_bytes(manifest_of(b"two").raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    rescan.take_in(rescan.look())
    assert [one.digest for one in shelf] == [manifest_of(b"two").digest]


def test_of_names_in_other_letters_the_one_that_stays_is_found(tmp_path: Path) -> None:
    """Ollama on another file system may have made both."""
    layout = made(tmp_path)
    shelf = ManifestShelf(layout, layout.manifests)
    rescan = Rescan(layout.manifests, shelf)
    upper = ModelName.parse("THEIRS")
    first, other = ollama_pulls(layout.root, upper, b"upper"), ollama_pulls(layout.root, THEIRS, b"lower")
    assert rescan.take_in(rescan.look()) == []
    assert found(shelf) == first.digest
    manifest_path(layout.root, upper).unlink()
    assert rescan.take_in(rescan.look()) == []
    assert found(shelf) == other.digest
    manifest_path(layout.root, THEIRS).unlink()
    assert [one.name for one in rescan.take_in(rescan.look())] == [THEIRS]
    assert list(shelf.blobs()) == []


def found(shelf: ManifestShelf) -> Digest | None:
    """The digest of what is found."""
    stored = shelf.find(THEIRS)
    manifest: Manifest | None = shelf.read(stored) if stored else None
    return manifest.digest if manifest else None


async def test_a_blob_that_is_read_is_not_promised_to_go(tmp_path: Path) -> None:
    """When its last reader leaves, Ollama may have named it; the next tidying up finds it loose."""
    async with sharing(tmp_path) as store:
        await keep(store, OURS, WEIGHTS)
        for content in (WEIGHTS, CONFIG):
            age(store.layout.blob(Digest.of(content)), 2)
        with store.open_blob(Digest.of(WEIGHTS)) or pytest.fail("it is there"):
            assert await store.remove(OURS) == len(CONFIG)
            ollama_pulls(store.layout.root, THEIRS, WEIGHTS)
        assert problems(store.layout) == []


async def test_what_a_mirror_published_before_it_shared_counts_as_ours(tmp_path: Path) -> None:
    """Sharing is switched on later, as a rule."""
    async with opened(tmp_path) as store:
        await keep(store, OURS, WEIGHTS)
        publish(store.layout, b"loose")
    heard: list[Event] = []
    async with sharing(tmp_path, heard) as store:
        await store.refresh()
        assert heard == []
        assert [one.name for one in store.complete] == [OURS]


@pytest.mark.parametrize("drop_theirs", [False, True])
async def test_a_pull_through_us_does_not_take_the_name_of_a_model_that_is_ollamas(
    tmp_path: Path, drop_theirs: bool
) -> None:
    """Somebody made it there and calls it as an upstream's is called; a machine elsewhere pulls that one."""
    async with running_fake_registry() as fake:
        fake.add_model("library/theirs:latest", {"application/vnd.ollama.image.model": b"upstream's"})
        settings = {"cache__drop_ollama_models": drop_theirs}
        async with beside_ollama(tmp_path, fake, **settings) as (mirror, client, folder):
            made = ollama_pulls(folder, THEIRS, b"made here")
            await mirror.parts.puller.pull(THEIRS, lambda _: None)
            pulled = await client.get(tag_path(THEIRS))
            assert Digest.of(b"upstream's") in {one.digest for one in Manifest.parse(pulled.body).layers}
            there = manifest_path(folder, THEIRS).read_bytes()
            assert (there == made.raw) is not drop_theirs
            await mirror.parts.keeper.collect(everything=True)
        async with beside_ollama(tmp_path, fake, **settings) as (mirror, client, folder):
            assert manifest_path(folder, THEIRS).exists() is not drop_theirs
            if not drop_theirs:
                assert manifest_path(folder, THEIRS).read_bytes() == made.raw, "nor at the next start"


async def test_a_damaged_model_of_a_shared_tree_is_repaired(tmp_path: Path) -> None:
    """Its manifest stays where it is, and still it counts as damaged and is fetched again."""
    async with running_fake_registry() as fake:
        content = b"x" * 5000
        fake.add_model("library/ours:latest", {"application/vnd.ollama.image.model": content})
        async with beside_ollama(tmp_path, fake) as (mirror, client, folder):
            await mirror.parts.puller.pull(OURS, lambda _: None)
            path = blob(folder, content)
            path.write_bytes(b"y" * 5000)
            await mirror.parts.scrub.scrub(lambda _: None, None)

            async def whole() -> bool:
                return path.exists() and path.read_bytes() == content

            await eventually(whole)
            assert (await client.get(blob_path(Digest.of(content), OURS.repository))).body == content
            assert mirror.parts.store.damaged_models() == []
