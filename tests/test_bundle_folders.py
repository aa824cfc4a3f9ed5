"""Models out of the folder of an Ollama, or of another mirror, without copying what can be shared."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirror.bundles import Imported, import_folder
from mirror.errors import BadBundle, StoreFull
from mirror.store import Store
from mirror.values import Digest, ModelName
from tests.bundled import (
    INDEX,
    LONG,
    OTHER,
    everything,
    index_of,
    keep_many,
    opened,
    reserving,
    silent,
    tree,
)
from tests.disks import small_disk
from tests.stored import CONFIG, NAME, WEIGHTS, described, keep, manifest_of, problems

WEIGHTS_FILE = Digest.of(WEIGHTS).filename
TINY = Path("manifests/registry.ollama.ai/library/tiny")


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder as Ollama keeps it, with two models that share a blob."""
    async with opened(tmp_path / "ollama") as store:
        await keep(store, NAME, WEIGHTS)
        await keep(store, OTHER, WEIGHTS, b"")
    return tmp_path / "ollama" / "store"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """Another file system, of 4 MB."""
    with small_disk(tmp_path / "elsewhere") as place:
        yield place


async def take(store: Store, folder: Path, names: list[ModelName] | None = None) -> Imported:
    """Import a folder."""
    return await import_folder(folder, store, reserving(store), silent, names)


async def test_a_whole_folder_is_taken_in(tmp_path: Path) -> None:
    """Moving from Ollama's folder, or from another mirror, takes one command."""
    async with opened(tmp_path / "a") as store:
        names = await keep_many(store)
    before = everything(tmp_path / "a")
    seen: list[tuple[int, int | None]] = []
    async with opened(tmp_path / "b") as store:
        imported = await import_folder(
            tmp_path / "a" / "store", store, reserving(store), lambda *step: seen.append(step)
        )
        assert problems(store.layout) == []
        assert not [*store.layout.temporary.iterdir()]
        assert not [*store.room._promises]
    assert set(imported.models) == set(names) == {NAME, OTHER, LONG, INDEX}
    assert tree(tmp_path / "b") == tree(tmp_path / "a")
    assert everything(tmp_path / "a") == before
    assert (seen[0][0], seen[-1]) == (0, (imported.new_bytes, imported.new_bytes))
    async with opened(tmp_path / "b") as store:
        again = await take(store, tmp_path / "a" / "store")
        assert (again.new, again.new_bytes, again.replaced, again.here) == (0, 0, (), imported.new)


async def test_bytes_are_shared_on_one_file_system(tmp_path: Path, folder: Path) -> None:
    """Forty gigabytes need not be there twice; where there are no reflinks, it is one file with two names."""
    async with opened(tmp_path / "b") as store:
        await take(store, folder)
        mine, theirs = store.layout.blob(Digest.of(WEIGHTS)), folder / "blobs" / WEIGHTS_FILE
        if reflinks(tmp_path):
            assert not mine.samefile(theirs)
        else:
            assert mine.samefile(theirs)


def reflinks(folder: Path) -> bool:
    """Whether the file system can share bytes between files."""
    (folder / "one").write_bytes(b"x")
    command = ["cp", "--reflink=always", str(folder / "one"), str(folder / "two")]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


async def test_shared_bytes_look_new(tmp_path: Path, folder: Path) -> None:
    """What no manifest names is tidied away by its age: by our keeper, and by an Ollama on the same folder."""
    for blob in (folder / "blobs").iterdir():
        os.utime(blob, (1, 1))
    async with opened(tmp_path / "b") as store:
        await take(store, folder)
        assert all(path.stat().st_mtime > 1e9 for path in store.layout.blobs.iterdir())


async def test_bytes_are_copied_from_another_file_system(folder: Path, elsewhere: Path) -> None:
    """Nothing can be shared there."""
    async with opened(elsewhere) as store:
        await take(store, folder)
        assert problems(store.layout) == []
        assert not store.layout.blob(Digest.of(WEIGHTS)).samefile(folder / "blobs" / WEIGHTS_FILE)
        assert (store.layout.blob(Digest.of(WEIGHTS)).stat().st_mode & 0o777) == 0o644


async def test_a_folder_larger_than_the_room_is_refused(tmp_path: Path, elsewhere: Path) -> None:
    """Both when the room is counted and when it turns out smaller; nothing is left."""
    async with opened(tmp_path / "big") as store:
        await keep(store, NAME, b"small", b"x" * (8 << 20))
    async with opened(elsewhere) as store:
        before = everything(elsewhere)
        with pytest.raises(StoreFull, match="no room"):
            await take(store, tmp_path / "big" / "store")
        assert everything(elsewhere) == before
        store.room.free = lambda: 1 << 40  # type: ignore[method-assign]
        with pytest.raises(StoreFull, match="No space left"):
            await take(store, tmp_path / "big" / "store")
        assert everything(elsewhere) == before


async def test_only_some_models_are_taken_when_they_are_named(tmp_path: Path, folder: Path) -> None:
    """What else is in the folder, and how broken it is, is then no concern."""
    (folder / TINY / "broken").write_bytes(b"{}")
    (folder / "manifests" / "stray").write_bytes(b"")
    async with opened(tmp_path / "b") as store:
        imported = await take(store, folder, [ModelName.parse("TINY:OTHER")])
        assert imported.models == (OTHER,)
        assert {one.name for one in store.complete} == {OTHER}
        with pytest.raises(BadBundle, match=r"not in .*: tiny:gone"):
            await take(store, folder, [NAME, NAME.with_tag("gone")])
        assert store.complete.find(NAME) is None


async def test_leftovers_and_dotfiles_are_passed_over(tmp_path: Path, folder: Path) -> None:
    """Ollama's unfinished blobs, and what desktops put everywhere."""
    for name in (f"{WEIGHTS_FILE}-partial", f"{WEIGHTS_FILE}-partial-0", ".DS_Store", "x"):
        (folder / "blobs" / name).write_bytes(b"leftover")
    for place in (Path("manifests"), TINY.parent, TINY):
        (folder / place / ".DS_Store").write_bytes(b"desktop")
    (folder / "manifests" / ".hidden").mkdir()
    (folder / "manifests" / ".hidden" / "x").write_bytes(b"")
    (folder / "manifests" / "empty" / "folder").mkdir(parents=True)
    (folder / "blobs" / f"sha256-{'a' * 64}").write_bytes(b"no model names it, so nobody looks")
    async with opened(tmp_path / "b") as store:
        assert (await take(store, folder)).new == 3
        assert problems(store.layout) == []


async def test_blobs_in_older_spelling_are_found(tmp_path: Path, folder: Path) -> None:
    """Ollama renamed them in 2024, but only where it runs."""
    (folder / "blobs" / WEIGHTS_FILE).rename(folder / "blobs" / str(Digest.of(WEIGHTS)))
    async with opened(tmp_path / "b") as store:
        assert (await take(store, folder)).new == 3
        assert problems(store.layout) == []


async def test_a_link_to_a_blob_is_followed_and_not_kept(tmp_path: Path, folder: Path) -> None:
    """Large blobs often lie on another disk; our store must not depend on that."""
    away = tmp_path / "away"
    (folder / "blobs" / WEIGHTS_FILE).rename(away)
    (folder / "blobs" / WEIGHTS_FILE).symlink_to(away)
    async with opened(tmp_path / "b") as store:
        await take(store, folder)
        mine = store.layout.blob(Digest.of(WEIGHTS))
        assert not mine.is_symlink()
        assert not mine.samefile(away)
        assert problems(store.layout) == []


async def test_a_blob_that_is_here_is_not_looked_for(tmp_path: Path, folder: Path) -> None:
    """The folder may be a part of one, as an unpacked bundle with blobs left out is."""
    (folder / "blobs" / WEIGHTS_FILE).unlink()
    async with opened(tmp_path / "b") as store:
        await keep(store, NAME.with_tag("mine"), WEIGHTS)
        assert (await take(store, folder)).here == 2


def pipe(path: Path) -> None:
    """A pipe nobody writes into."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def listener(path: Path) -> None:
    """A socket, which cannot be opened."""
    path.unlink()
    os.chdir(path.parent)  # a socket's path may have few characters
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name[-20:])
    path.with_name(path.name[-20:]).rename(path)


def dangling(path: Path) -> None:
    """A link to nothing."""
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere")


def replaced_by(content: bytes) -> Callable[[Path], object]:
    """Other bytes in place of what is there."""
    return lambda path: path.write_bytes(content)


def file_below(*parts: str, content: bytes = b"") -> Callable[[Path], object]:
    """One more file, in folders that are made."""

    def make(path: Path) -> None:
        path.joinpath(*parts).parent.mkdir(parents=True)
        path.joinpath(*parts).write_bytes(content)

    return make


def giant(path: Path) -> None:
    """A file of a terabyte, all of it a hole."""
    path.touch()
    os.truncate(path, 1 << 40)


WRONG_SIZE = manifest_of(layers=[described(WEIGHTS, size=5)], config=None)
BLOB = f"blobs/{WEIGHTS_FILE}"
BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no folder": ("", lambda path: path.rename(path.with_name("moved")), "cannot read .*/manifests: No such"),
    "no blobs": ("blobs", lambda path: path.rename(path.with_name("moved")), "cannot read .*/blobs: No such"),
    "no manifests": ("manifests", lambda path: path.rename(path.with_name("moved")), "cannot read .*/manifests"),
    "nothing in it": (str(TINY), lambda path: path.rename(path.parents[3] / "moved"), "no models"),
    "a missing blob": (BLOB, Path.unlink, f"nowhere to be found: {Digest.of(WEIGHTS)}"),
    "a changed blob": (BLOB, replaced_by(WEIGHTS[::-1]), f"{WEIGHTS_FILE} has the wrong bytes"),
    "a cut blob": (BLOB, replaced_by(b"cut"), "has 32000 bytes; it has 3"),
    "a pipe for a blob": (BLOB, pipe, "is not a file"),
    "a socket for a blob": (BLOB, listener, "is not a file"),
    "a link to no blob": (BLOB, dangling, "cannot read .*: No such file"),
    "a manifest that is none": (str(TINY / "latest"), replaced_by(b"[]"), "/tiny/latest is no manifest"),
    "a manifest of another size": (str(TINY / "latest"), replaced_by(WRONG_SIZE.raw), "has 5 bytes; it has 32000"),
    "a pipe for a manifest": (str(TINY / "x"), pipe, "/tiny/x is not a file"),
    "a link to no manifest": (str(TINY / "x"), dangling, "cannot read .*/tiny/x: No such file"),
    "a stray file": ("manifests/x", replaced_by(b""), "manifests/x is not where a manifest can be"),
    "a file too deep": (str(TINY), file_below("y", "z"), "tiny/y/z is not where a manifest can be"),
    "an impossible name": (str(TINY / "x~"), replaced_by(b""), "x~ is not where .* invalid model name"),
    "two spellings": (str(TINY.parent), file_below("Tiny", "latest", content=WRONG_SIZE.raw), "letter case"),
    "a manifest too large": (str(TINY / "x"), giant, "at most 16777216"),
    "an index without its child": (str(TINY / "x"), replaced_by(index_of(WRONG_SIZE).raw), "nowhere to be found"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_broken_folder_is_refused_and_nothing_is_changed(
    tmp_path: Path, folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what was meant is worse than nothing, for nobody would notice."""
    monkeypatch.chdir(tmp_path)
    place, spoil, why = BROKEN[what]
    spoil(folder / place)
    async with opened(tmp_path / "b") as store:
        await keep(store, LONG, b"here")
        before = everything(tmp_path / "b")
        with pytest.raises(BadBundle, match=why):
            await take(store, folder)
        assert everything(tmp_path / "b") == before
        assert [one.name for one in store.complete] == [LONG]
        assert not [*store.room._promises]


@pytest.mark.parametrize("place", [BLOB, "blobs", str(TINY), str(TINY / "latest")])
def test_what_may_not_be_read_is_named(tmp_path: Path, folder: Path, place: str) -> None:
    """Ollama's folder belongs to its own user; the sentence says which file it is about."""
    program = "import asyncio, sys, tests.test_bundle_folders as t; asyncio.run(t.refused(*sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(tmp_path / "b"), str(folder)]
    if not os.geteuid():  # root may read everything, unless it gives that up
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    (folder / place).chmod(0)
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    finally:
        (folder / place).chmod(0o755)
    assert done.stdout == f"cannot read {folder / place}: Permission denied\n"


async def refused(into: str, folder: str) -> None:
    """Print why an import is refused."""
    async with opened(Path(into)) as store:
        with pytest.raises(BadBundle) as found:
            await take(store, Path(folder))
        print(found.value)  # noqa: T201


async def test_the_empty_config_is_taken_along(tmp_path: Path, folder: Path) -> None:
    """Every blob of a model, and no other."""
    async with opened(tmp_path / "b") as store:
        await take(store, folder, [OTHER])
        assert {digest for digest, _ in store.blobs} == {Digest.of(one) for one in (WEIGHTS, CONFIG, b"")}
