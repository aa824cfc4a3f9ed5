"""Models go from one store to another by a tar that any tool can read."""

import json
import subprocess
from pathlib import Path

import pytest

from mirror.bundles import Bundle, Imported, read_since
from mirror.errors import BadBundle, BrokenStore
from mirror.events import Event, ModelStored
from mirror.store import Store
from mirror.values import Digest
from tests.bundled import (
    INDEX,
    MANIFEST,
    OTHER,
    blob,
    entry,
    everything,
    good,
    keep_many,
    manifest,
    opened,
    take,
    tar,
    tar_of,
    tree,
)
from tests.stored import CONFIG, NAME, WEIGHTS, described, keep, manifest_of, problems


@pytest.mark.parametrize("chunk", [1, 511, 1 << 20])
async def test_a_store_is_the_same_after_the_journey(tmp_path: Path, chunk: int) -> None:
    """Shared and empty blobs, long names and an index with its children: every byte of them arrives."""
    async with opened(tmp_path / "a") as store:
        names = await keep_many(store)
        raw = await tar_of(Bundle.of(store, names))
    heard: list[Event] = []
    async with opened(tmp_path / "b", heard) as store:
        imported = await take(store, raw, chunk)
        assert problems(store.layout) == []
        assert {one.name for one in store.complete} == set(names)
        assert not list(store.layout.temporary.iterdir())
    assert imported == Imported(
        models=tuple(sorted(names)),
        replaced=(),
        new=6,
        new_bytes=len(WEIGHTS) + len(CONFIG) + len(b"long") + len(b"of the child") + len(index_child()),
        here=0,
    )
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert {one.name for one in heard if isinstance(one, ModelStored)} == set(names)


def index_child() -> bytes:
    """The manifest that the index names."""
    return manifest_of(b"of the child").raw


async def test_what_is_written_is_known_before_a_byte_of_it(tmp_path: Path) -> None:
    """A reply over HTTP has its length in front, and the same models are the same bytes for ever."""
    async with opened(tmp_path) as store:
        names = await keep_many(store)
        bundle = Bundle.of(store, names)
        raw = await tar_of(bundle)
        assert bundle.total == len(raw)
        assert bundle.total % 10240 == 0
        assert raw == await tar_of(Bundle.of(store, [*reversed(names), *names]))
        for member in bundle.members:
            at = member.offset + len(member.head)
            assert Digest.of(raw[at : at + member.size]) == member.digest
        paths = [member.path for member in bundle.members]
        assert paths[:2] == ["mirror-bundle.json", "SHA256SUMS"]
        assert [path.split("/")[0] for path in paths[2:]] == ["blobs"] * 6 + ["manifests"] * 4


async def test_it_can_be_read_from_any_byte_on(tmp_path: Path) -> None:
    """A far client goes on where it was cut off."""
    async with opened(tmp_path) as store:
        bundle = Bundle.of(store, await keep_many(store))
        raw = await tar_of(bundle)
        ends = {at for member in bundle.members for at in (member.offset, member.offset + len(member.head), member.end)}
        for start in sorted({at + off for at in ends for off in (-1, 0, 1)} | {len(raw) - 1, len(raw), len(raw) + 1}):
            if start >= 0:
                assert await tar_of(bundle, start) == raw[start:]


async def test_tar_and_sha256sum_read_it(tmp_path: Path) -> None:
    """Whoever has no mirror unpacks it into OLLAMA_MODELS by hand, and can check it."""
    async with opened(tmp_path / "a") as store:
        bundle = Bundle.of(store, await keep_many(store))
        (tmp_path / "x.tar").write_bytes(await tar_of(bundle))
    listed = run("tar", "tf", "x.tar", cwd=tmp_path)
    assert listed.splitlines() == [member.path for member in bundle.members]
    (tmp_path / "out").mkdir()
    run("tar", "xf", "../x.tar", cwd=tmp_path / "out")
    assert run("sha256sum", "-c", "SHA256SUMS", cwd=tmp_path / "out").count(": OK\n") == len(bundle.members) - 2
    (tmp_path / "out" / "SHA256SUMS").unlink()
    said = json.loads((tmp_path / "out" / "mirror-bundle.json").read_text())
    assert {one["name"] for one in said["models"]} >= {str(NAME), str(INDEX)}
    (tmp_path / "out" / "mirror-bundle.json").unlink()
    assert everything(tmp_path / "out") == tree(tmp_path / "a")


@pytest.mark.parametrize("what", [["blobs", "manifests"], ["manifests", "blobs"], ["."], ["./manifests", "./blobs"]])
@pytest.mark.parametrize("form", ["gnu", "ustar", "posix", "v7"])
async def test_a_tar_of_ollamas_own_folder_is_taken_in(tmp_path: Path, what: list[str], form: str) -> None:
    """Most people have no mirror where the models are, but tar; what Ollama has not finished is passed over."""
    async with opened(tmp_path / "a") as store:
        await keep(store, NAME, WEIGHTS)
        await keep(store, OTHER, b"")
    for leftover in (f"sha256-{'a' * 64}-partial", f"sha256-{'a' * 64}-partial-0", ".DS_Store"):
        (tmp_path / "a" / "store" / "blobs" / leftover).write_bytes(b"leftover")
    run("tar", f"--format={form}", "-cf", tmp_path / "x.tar", "-C", tmp_path / "a" / "store", *what, cwd=tmp_path)
    async with opened(tmp_path / "b") as store:
        imported = await take(store, (tmp_path / "x.tar").read_bytes())
        assert problems(store.layout) == []
    assert (imported.new, set(imported.models)) == (3, {NAME, OTHER})


async def test_blobs_the_other_side_has_are_left_out(tmp_path: Path) -> None:
    """A second bundle carries only what is new, and a third what is new after both."""
    async with opened(tmp_path / "a") as store:
        await keep(store, NAME, WEIGHTS)
        (tmp_path / "1.tar").write_bytes(await tar_of(Bundle.of(store, [NAME])))
        await keep(store, OTHER, WEIGHTS, b"new")
        second = Bundle.of(store, [NAME, OTHER], read_since(tmp_path / "1.tar"))
        (tmp_path / "2.tar").write_bytes(await tar_of(second))
    assert [one.size for one in second.members if one.path.startswith("blobs/")] == [3]
    assert read_since(tmp_path / "2.tar") == {Digest.of(one) for one in (WEIGHTS, CONFIG, b"new")}
    async with opened(tmp_path / "b") as store:
        with pytest.raises(BadBundle, match=f"lack blobs .*{Digest.of(WEIGHTS)} of tiny:"):
            await take(store, (tmp_path / "2.tar").read_bytes())
        await take(store, (tmp_path / "1.tar").read_bytes())
        imported = await take(store, (tmp_path / "2.tar").read_bytes())
        assert (imported.new, imported.new_bytes, imported.here) == (1, 3, 2)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "does not begin with"),
        (b"\x1f\x8b" + bytes(600), "gzip"),
        (tar(manifest()), "does not begin with"),
        (tar(entry("mirror-bundle.json", b"{}")), "does not say what a bundle holds"),
        (tar(entry("mirror-bundle.json", b'{"format": 2}')), "format 2"),
        (tar(entry("mirror-bundle.json", size=17 << 20)), "too large|at most"),
    ],
)
def test_since_needs_a_bundle(tmp_path: Path, content: bytes | None, why: str) -> None:
    """Another file would leave out nothing, or what the other side has not."""
    if content is not None:
        (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(BadBundle, match=why):
        read_since(tmp_path / "x.tar")


async def test_models_that_are_not_whole_are_named(tmp_path: Path) -> None:
    """Half a model helps nobody."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        await store.put_manifest(OTHER, manifest_of(b"never came"))
        with pytest.raises(BadBundle, match="not complete in this store: tiny:gone, tiny:other"):
            Bundle.of(store, [NAME, OTHER, NAME.with_tag("gone")])
        with pytest.raises(BadBundle, match="no models"):
            Bundle.of(store, [])


async def test_an_index_without_a_blob_of_its_child_is_not_whole(tmp_path: Path) -> None:
    """The store calls it complete as soon as the children are there; for a journey all of it is needed."""
    async with opened(tmp_path) as store:
        await keep_many(store)
        store.layout.blob(Digest.of(b"of the child")).unlink()
        with pytest.raises(BadBundle, match=f"{Digest.of(b'of the child')} of tiny:index"):
            Bundle.of(store, [INDEX])


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"W" + WEIGHTS[1:], "mirror scrub"), (WEIGHTS[:-1], "no longer in"), (None, "no longer in")],
)
async def test_a_damaged_blob_does_not_leave_the_house(tmp_path: Path, content: bytes | None, why: str) -> None:
    """Its last piece is withheld, and a person is told what to do."""
    sent = bytearray()

    async def send(bundle: Bundle) -> None:
        async for piece in bundle.pieces():
            sent.extend(piece)

    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        bundle = Bundle.of(store, [NAME])
        path = store.layout.blob(Digest.of(WEIGHTS))
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BrokenStore, match=why):
            await send(bundle)
        assert WEIGHTS[1:] not in sent


async def test_a_new_manifest_of_a_known_name_is_said_to_replace(tmp_path: Path) -> None:
    """A person wants to know which models changed; blobs that are here are not written again."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, b"old")
        await keep(store, OTHER, WEIGHTS)
        before = store.layout.blob(Digest.of(WEIGHTS)).stat()
        imported = await take(store, tar(blob(CONFIG), blob(WEIGHTS), manifest(), manifest(path=path_of("other"))))
        assert imported == Imported(models=(NAME, OTHER), replaced=(NAME,), new=0, new_bytes=0, here=2)
        assert store.layout.blob(Digest.of(WEIGHTS)).stat() == before
        found = store.complete.find(NAME)
        assert found is not None
        assert found.digest == MANIFEST.digest


def path_of(tag: str) -> str:
    """Where the manifest of another tag is."""
    return f"manifests/registry.ollama.ai/library/tiny/{tag}"


async def test_a_blob_of_the_wrong_size_in_the_store_is_mended(tmp_path: Path) -> None:
    """The input has the right one."""
    async with opened(tmp_path / "b") as store:
        await keep(store, NAME, WEIGHTS)
        store.layout.blob(Digest.of(WEIGHTS)).write_bytes(b"cut")
        assert (await take(store, await good(tmp_path / "a"))).new == 1
        assert problems(store.layout) == []


async def test_blobs_no_model_names_are_left_out(tmp_path: Path) -> None:
    """They would be clutter that nothing ever uses."""
    async with opened(tmp_path) as store:
        await take(store, tar(blob(b"clutter"), blob(WEIGHTS), blob(CONFIG), manifest()))
        assert store.blobs.size(Digest.of(b"clutter")) is None
        assert not list(store.layout.temporary.iterdir())


async def test_a_blob_may_have_any_spelling_of_its_name(tmp_path: Path) -> None:
    """Older Ollamas wrote ``sha256:hex``."""
    older = entry(f"blobs/sha256:{Digest.of(WEIGHTS).hex.upper()}", WEIGHTS)
    async with opened(tmp_path) as store:
        await take(store, tar(older, blob(CONFIG), manifest()))
        assert problems(store.layout) == []


async def test_a_child_that_is_no_manifest_is_a_blob_like_others(tmp_path: Path) -> None:
    """An index may name what is signed or described about a model."""
    odd = manifest_of(manifests=[described(b"a signature")])
    async with opened(tmp_path / "a") as store:
        await import_odd(store, tar(blob(b"a signature"), blob(CONFIG), manifest(odd)))
        raw = await tar_of(Bundle.of(store, [NAME]))
    async with opened(tmp_path / "b") as store:
        await import_odd(store, raw)


async def import_odd(store: Store, raw: bytes) -> None:
    """Import, and find it whole."""
    assert (await take(store, raw)).new == 2
    assert store.complete.find(NAME) is not None


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program that must succeed; return what it prints."""
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout
