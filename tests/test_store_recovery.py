"""What a start makes of the tree it finds, whoever left it so."""

import os
from pathlib import Path

import pytest

from mirror.store import Partial
from mirror.values import ByteRange, Digest, RangeSet
from tests.stored import CONFIG, NAME, WEIGHTS, described, digests, files, keep, made, manifest_of, opened, problems
from tests.stored import publish as publish_in

TINY = "registry.ollama.ai/library/tiny/latest"


async def test_a_complete_model_that_lacks_a_blob_is_staged_and_completed_again(tmp_path: Path) -> None:
    """Promise 2: somebody deleted a blob; the model must not be offered as whole, nor be forgotten."""
    async with opened(tmp_path) as store:
        manifest = await keep(store, NAME, WEIGHTS)
        store.layout.blob(Digest.of(WEIGHTS)).unlink()
    async with opened(tmp_path) as store:
        assert (files(store.layout.manifests), files(store.layout.staged)) == (set(), {TINY})
        assert store.problems == ["tiny:latest lacks 1 of its blobs; it is fetched again when asked for"]
        await store.arrived(publish_in(store.layout, WEIGHTS))
        assert store.layout.manifest(NAME).read_bytes() == manifest.raw


@pytest.mark.parametrize("wrong", [b"", WEIGHTS[:-1], WEIGHTS + b"!"])
async def test_a_blob_of_the_wrong_size_goes_to_quarantine(tmp_path: Path, wrong: bytes) -> None:
    """Promise 1: old Ollamas wrote into the final name; the bytes are kept for who wants to look."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        store.layout.blob(Digest.of(WEIGHTS)).write_bytes(wrong)
    async with opened(tmp_path) as store:
        assert files(store.layout.blobs) == digests([CONFIG])
        assert (store.layout.quarantine / Digest.of(WEIGHTS).filename).read_bytes() == wrong
        assert (len(store.complete), len(store.staged)) == (0, 1)
        assert problems(store.layout) == []


async def test_a_manifest_that_is_wrong_about_a_blob_does_not_take_it_from_others(tmp_path: Path) -> None:
    """Promise 2: the blob is the one that another complete model names."""
    liar = manifest_of(layers=[described(WEIGHTS, size=5)], config=None)
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        for tag in ("a", "z"):
            (store.layout.manifest(NAME.with_tag(tag))).write_bytes(liar.raw)
    async with opened(tmp_path) as store:
        assert [one.name for one in store.complete] == [NAME]
        assert files(store.layout.quarantine) == set()
        assert problems(store.layout) == []


async def test_a_staged_model_whose_blobs_are_all_here_is_promoted(tmp_path: Path) -> None:
    """Promise 3: the process was killed between the last blob and the manifest."""
    async with opened(tmp_path) as store:
        await store.put_manifest(NAME, manifest_of(WEIGHTS))
        for content in (WEIGHTS, CONFIG):
            publish_in(store.layout, content)
    async with opened(tmp_path) as store:
        assert (files(store.layout.manifests), files(store.layout.staged)) == ({TINY}, set())
        assert len(store.complete) == 1


async def test_a_manifest_on_both_shelves_ends_on_one(tmp_path: Path) -> None:
    """Promise 3: the process was killed in the middle of a promotion."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        store.staged.write(NAME, manifest_of(WEIGHTS))
    async with opened(tmp_path) as store:
        assert (files(store.layout.manifests), files(store.layout.staged)) == ({TINY}, set())


async def test_a_newer_manifest_is_not_replaced_by_the_one_that_lost_its_blobs(tmp_path: Path) -> None:
    """What the tag means now was learned from the upstream; it must survive a restart."""
    new = manifest_of(b"new")
    async with opened(tmp_path) as store:
        await keep(store, NAME, b"old")
        await store.put_manifest(NAME, new)
        store.layout.blob(Digest.of(b"old")).unlink()
    async with opened(tmp_path) as store:
        found = store.find(NAME)
        assert found is not None
        assert found.digest == new.digest
        assert files(store.layout.manifests) == set()


async def test_junk_is_removed_and_a_resumable_partial_is_kept(tmp_path: Path) -> None:
    """Promise 3: what was recorded is gone on with; what can never be used does not fill the disk."""
    half = ByteRange(0, len(WEIGHTS) // 2)
    async with opened(tmp_path) as store:
        partial = Partial.open(store.layout, Digest.of(WEIGHTS), len(WEIGHTS))
        partial.write(0, WEIGHTS[: half.stop])
        partial.record(RangeSet([half]))
        partial.close()
        for path in (store.layout.partials / "junk", store.layout.partials / ("0" * 64), store.layout.temporary / "x"):
            path.write_bytes(b"?")
    async with opened(tmp_path) as store:
        assert files(store.layout.state) == {"lock"} | {
            f"partial/{Digest.of(WEIGHTS).hex}{end}" for end in ("", ".json")
        }
        partial = Partial.open(store.layout, Digest.of(WEIGHTS), len(WEIGHTS))
        assert list(partial.resumed) == [half]
        assert os.pread(partial.fd, half.stop, 0) == WEIGHTS[: half.stop]
        partial.close()


@pytest.mark.parametrize(
    "path", ["h/ns/m/notes.txt", "h/ns/README", "h/.DS_Store", "h/n.s/m/t", "h/ns/m/t/deeper", "h/ns/m/.hidden"]
)
async def test_what_is_no_manifest_in_the_tree_is_left_alone(tmp_path: Path, path: str) -> None:
    """The folder may be shared; nothing of anybody's is deleted or stops the start."""
    layout = made(tmp_path)
    (layout.manifests / path).parent.mkdir(parents=True)
    (layout.manifests / path).write_bytes(b"mine")
    async with opened(tmp_path) as store:
        assert (len(store.complete), len(store.staged)) == (0, 0)
        [problem] = problems(store.layout)
        assert problem.startswith(f"manifests/{path} is no manifest")
    assert (layout.manifests / path).read_bytes() == b"mine"


async def test_a_file_with_a_models_name_that_is_no_manifest_is_reported_at_start(tmp_path: Path) -> None:
    """The user can then look at it."""
    layout = made(tmp_path)
    (layout.manifests / "h/ns/m").mkdir(parents=True)
    (layout.manifests / "h/ns/m/t").write_bytes(b"mine")
    async with opened(tmp_path) as store:
        [problem] = store.problems
    assert problem.startswith(f"{layout.manifests}/h/ns/m/t is not a manifest")
    assert (layout.manifests / "h/ns/m/t").read_bytes() == b"mine"


async def test_a_second_start_finds_nothing_left_to_mend(tmp_path: Path) -> None:
    """Mending is done once, and what it leaves is sound."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        store.layout.blob(Digest.of(WEIGHTS)).write_bytes(b"cut")
    async with opened(tmp_path) as store:
        assert store.problems
    before = files(tmp_path)
    async with opened(tmp_path) as store:
        assert store.problems == []
    assert files(tmp_path) == before
