"""Manifests on the disk and the index of them: by name, by digest, by what they name."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mirror.store import Layout, ManifestShelf
from mirror.values import MAX_MANIFEST_BYTES, Digest, Manifest, ModelName
from tests.stored import CONFIG, NAME, files, made, manifest_of

ONE, OTHER = manifest_of(b"one"), manifest_of(b"other")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty store."""
    return made(tmp_path)


@pytest.fixture
def shelf(layout: Layout) -> ManifestShelf:
    """The shelf of complete models."""
    return ManifestShelf(layout, layout.manifests)


def put(shelf: ManifestShelf, text: str, manifest: Manifest = ONE) -> None:
    """Write and note, as the store does."""
    name = ModelName.parse(text)
    shelf.write(name, manifest)
    shelf.note(name, manifest)


def lay(layout: Layout, path: str, raw: bytes = ONE.raw) -> Path:
    """Put a file into the tree as somebody else would."""
    target = layout.manifests / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(raw)
    return target


def test_the_raw_bytes_lie_where_ollama_looks(shelf: ManifestShelf, layout: Layout) -> None:
    """Written anew they would be another model; a port in the host is part of the folder's name."""
    put(shelf, "localhost:5000/ns/m:t")
    assert (layout.manifests / "localhost:5000/ns/m/t").read_bytes() == ONE.raw
    assert files(layout.root) == {"manifests/localhost:5000/ns/m/t"}
    assert files(layout.state) == set()


def test_a_reopened_shelf_knows_the_same(shelf: ManifestShelf, layout: Layout) -> None:
    """The tree is the truth; there is no other list."""
    for text in ("m", "m:1b", "h:1/ns/m:t"):
        put(shelf, text)
    again = ManifestShelf(layout, layout.manifests)
    assert again.load() == []
    assert set(again) == set(shelf)
    assert len(again) == 3


@pytest.mark.parametrize("text", ["Foo", "FOO:LATEST", "Library/foo", "REGISTRY.OLLAMA.AI/library/foo:Latest"])
def test_a_name_is_found_whatever_its_letter_case(shelf: ManifestShelf, text: str) -> None:
    """Ollama compares so (server/routes.go, getExistingName)."""
    put(shelf, "foo")
    found = shelf.find(ModelName.parse(text))
    assert found is not None
    assert str(found.name) == "registry.ollama.ai/library/foo:latest"


def test_a_name_in_other_letters_replaces_the_file_there_is(shelf: ManifestShelf, layout: Layout) -> None:
    """Two files for one model would be two models to a file system, one of them never updated."""
    put(shelf, "Foo", ONE)
    put(shelf, "foo", OTHER)
    assert files(layout.manifests) == {"registry.ollama.ai/library/Foo/latest"}
    found = shelf.find(ModelName.parse("FOO"))
    assert found is not None
    assert (found.name, found.digest) == (ModelName.parse("Foo"), OTHER.digest)
    assert shelf.remove(ModelName.parse("fOO")) == found
    assert files(layout.manifests) == set()


def test_of_names_that_differ_in_letters_only_all_keep_their_blobs(shelf: ManifestShelf, layout: Layout) -> None:
    """Promise 4: somebody else's tree may hold both, and neither's blobs may be dropped for the other's."""
    lay(layout, "h/ns/Foo/t", ONE.raw)
    lay(layout, "h/ns/foo/t", OTHER.raw)
    [(path, problem)] = shelf.load()
    assert path == layout.manifests / "h/ns/foo/t"
    assert "letter case" in problem
    shelf.remove(ModelName.parse("h/ns/foo:t"))
    assert named(shelf) == {Digest.of(b"other"), Digest.of(CONFIG)}
    assert files(layout.manifests) == {"h/ns/foo/t"}


def test_a_manifest_is_found_by_its_digest_while_any_tag_has_it(shelf: ManifestShelf) -> None:
    """Two tags of one model share the digest; one of them may go."""
    put(shelf, "m:a")
    put(shelf, "m:b")
    shelf.remove(ModelName.parse("m:b"))
    found = shelf.find_digest(ONE.digest)
    assert found is not None
    assert found.name.tag == "a"
    shelf.remove(ModelName.parse("m:a"))
    assert shelf.find_digest(ONE.digest) is None


def test_a_moved_tag_is_found_by_its_new_digest_only(shelf: ManifestShelf) -> None:
    """The old bytes are not on the disk any more."""
    put(shelf, "m", ONE)
    put(shelf, "m", OTHER)
    assert shelf.find_digest(ONE.digest) is None
    found = shelf.find_digest(OTHER.digest)
    assert found is not None
    read = shelf.read(found)
    assert read is not None
    assert read.raw == OTHER.raw


@pytest.mark.parametrize("raw", [b"", b"{}", b"not json", b"\xff", b"[" * 10_000, b" " * (MAX_MANIFEST_BYTES + 1)])
def test_a_file_that_is_no_manifest_is_reported_and_left_alone(
    shelf: ManifestShelf, layout: Layout, raw: bytes
) -> None:
    """It may be another program's; a start must not fail for it."""
    path = lay(layout, "h/ns/m/t", raw)
    put(shelf, "good")
    again = ManifestShelf(layout, layout.manifests)
    [(reported, problem)] = again.load()
    assert reported == path
    assert "not a manifest" in problem
    assert path.read_bytes() == raw
    assert [one.name for one in again] == [ModelName.parse("good")]


def test_removing_takes_the_folders_it_leaves_empty_and_no_others(shelf: ManifestShelf, layout: Layout) -> None:
    """Ollama would list an empty folder as nothing, but it would stay for ever."""
    put(shelf, "h/ns/m:t")
    put(shelf, "h/ns/other:t")
    shelf.remove(ModelName.parse("h/ns/m:t"))
    assert sorted(path.name for path in (layout.manifests / "h/ns").iterdir()) == ["other"]
    shelf.remove(ModelName.parse("h/ns/other:t"))
    assert list(layout.manifests.iterdir()) == []
    assert shelf.remove(NAME) is None


def test_a_file_that_was_changed_by_others_is_not_taken_for_the_one_known(layout: Layout) -> None:
    """Its digest is what a client was promised."""
    writer, reader = ManifestShelf(layout, layout.manifests), ManifestShelf(layout, layout.manifests)
    for number in range(300):
        put(writer, f"m:{number}")
    reader.load()
    stored = reader.find(ModelName.parse("m:0"))
    assert stored is not None
    lay(layout, "registry.ollama.ai/library/m/0", OTHER.raw)
    assert reader.read(stored) is None
    stored.path.unlink()
    assert reader.read(stored) is None


def test_the_index_knows_when_a_manifest_was_written_in_utc(shelf: ManifestShelf, layout: Layout) -> None:
    """Ollama shows the file's time as the model's."""
    path = lay(layout, "h/ns/m/t")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    shelf.load()
    [stored] = shelf
    assert stored.written_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (stored.size, stored.blobs) == (ONE.size, ONE.blobs)


def test_who_names_a_blob_is_known(shelf: ManifestShelf) -> None:
    """That is what keeps a shared blob."""
    put(shelf, "a", ONE)
    put(shelf, "b", OTHER)
    assert [one.name.model for one in shelf.naming(Digest.of(b"one"))] == ["a"]
    assert {one.name.model for one in shelf.naming(Digest.of(CONFIG))} == {"a", "b"}
    assert named(shelf) == {Digest.of(one) for one in (b"one", b"other", CONFIG)}


def named(shelf: ManifestShelf) -> set[Digest]:
    """What the manifests on a shelf keep from being dropped, asked blob by blob."""
    found = {blob.digest for blob in shelf.blobs()}
    assert all(map(shelf.names, found))
    assert not shelf.names(Digest.of(b"unheard of"))
    return found
