"""A program that does once all that changes a store, to be killed: ``python -m tests.crash_at FOLDER POINT [TIMES]``.

It dies as it passes the fault point for the n-th time. Without a point it runs to its end, and prints how often it
passed each. Run again on what is left, it ends in the same tree.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mirror import faultpoints
from mirror.bundles import Bundle, import_folder, import_tar
from mirror.errors import DigestMismatch
from mirror.store import Partial, Pins, Store
from mirror.values import DEFAULT_HOST, ByteRange, Digest, ModelName, NamePattern, RangeSet
from tests.bundled import index_of, reserving, silent, tar_of
from tests.kept import kept
from tests.stored import CONFIG, keep, manifest_of, opened

SIZE = 3000
MAX_SIZE = 9 * SIZE
GC_KEEPS = {"pinned", "plain", "dir"}
"""By its pin and by their last uses."""
CHILD = manifest_of(b"of the child")
NAMES = {
    one: ModelName.parse(one)
    for one in (
        "pinned",
        "plain",
        "old",
        "index",
        "removed",
        "waiting",
        "late",
        "lost",
        "cut",
        "holder",
        "tar",
        "more",
        "dir",
    )
}


def points() -> list[str]:
    """Every fault point that the source of mirror has."""
    source = Path(faultpoints.__file__).parent
    return sorted({one for path in source.rglob("*.py") for one in re.findall(r'passing\("(.+?)"\)', path.read_text())})


def content(of: str) -> bytes:
    """A blob of its own for each word."""
    return (of.encode() + b" ") * (SIZE // (len(of) + 1))


SPOILED = {Digest.of(content("lost")), Digest.of(content("cut"))}
"""The blobs that go missing, or lose their end, behind the store's back."""


def tell(store: Store, name: str, *, kept: bool) -> None:
    """Write down that a model is in the store from now on, or may go."""
    with (store.layout.root.parent / "told").open("a") as told:
        told.write(f"{'+' if kept else '-'}{name}\n")


def promised(folder: Path) -> set[str]:
    """The models that a run, however it ended, has left in the store, whole or waiting for what was spoiled."""
    kept: set[str] = set()
    for line in (folder / "told").read_text().split() if (folder / "told").exists() else ():
        kept = kept | {line[1:]} if line[0] == "+" else kept - {line[1:]}
    return kept


async def pull(store: Store, name: str, *layers: str) -> None:
    """Bring a model in as a pull does: only what is not here."""
    manifest = manifest_of(*map(content, layers))
    await store.put_manifest(NAMES[name], manifest)
    tell(store, name, kept=True)
    for one in (*map(content, layers), CONFIG):
        await fill(store, one)


async def fill(store: Store, whole: bytes) -> None:
    """Bring one blob in, if it is not here."""
    if store.blobs.size(Digest.of(whole)) is None:
        publish(store, whole)
        await store.arrived(Digest.of(whole))


def publish(store: Store, whole: bytes) -> None:
    """Go on with what is recorded of a blob: were that not so, the whole would be refused at the gate."""
    partial = Partial.open(store.layout, Digest.of(whole), len(whole))
    have = partial.resumed.copy()
    for gap in list(have.gaps(ByteRange(0, len(whole)))):
        partial.write(gap.start, whole[gap.start : gap.stop])
        have.add(gap)
    partial.record(have)
    partial.advance(len(whole))
    partial.publish()
    partial.close()


def begin(store: Store, whole: bytes, *, recorded: bool = True) -> None:
    """Leave a blob half filled."""
    half = ByteRange(0, len(whole) // 2)
    partial = Partial.open(store.layout, Digest.of(whole), len(whole))
    partial.write(0, whole[: half.stop])
    if recorded:
        partial.record(RangeSet([half]))
    partial.close()


def spoil(store: Store, whole: bytes) -> None:
    """A blob comes with a wrong byte, and is thrown away at the gate."""
    partial = Partial.open(store.layout, Digest.of(whole), len(whole))
    partial.write(0, b"!" + whole[1:])
    partial.record(RangeSet([ByteRange(0, len(whole))]))
    partial.advance(len(whole))
    with suppress(DigestMismatch):
        partial.publish()
    partial.drop()
    partial.close()


async def pulls(store: Store) -> None:
    """Models come in: one in two goes, one as an index, one that replaces another; one begins, and waits."""
    spoil(store, content("pinned"))
    begin(store, content("pinned"))
    await pull(store, "pinned", "pinned", "shared")
    await pull(store, "plain", "plain before", "shared")
    await pull(store, "plain", "plain", "shared")
    await pull(store, "old", "old")
    await pull(store, "holder", "held")
    for one in (b"of the child", CONFIG):
        await fill(store, one)
    await store.put_small_blob(CHILD.raw)
    await store.put_manifest(NAMES["index"], index_of(CHILD))
    await store.put_manifest(NAMES["waiting"], manifest_of(content("half"), content("nothing of it")))
    begin(store, content("half"))
    begin(store, content("unrecorded"), recorded=False)
    await fill(store, content("loose"))


async def changes(store: Store) -> None:
    """People pin and remove, a scrub condemns, what it condemned is mended."""
    pins = Pins(store.layout, host=DEFAULT_HOST)
    for one in ("pinned", "old"):
        pins.add(NamePattern.parse(one))
    pins.remove(NamePattern.parse("old"))
    await pull(store, "removed", "removed", "shared")
    begin(store, content("removed too"))
    await store.put_manifest(NAMES["removed"], manifest_of(content("removed"), content("removed too")))
    tell(store, "removed", kept=False)
    await store.remove(NAMES["removed"])
    for one in ("plain", "loose"):
        await store.condemn(Digest.of(content(one)))
        await fill(store, content(one))
    await store.condemn(Digest.of(content("loose")))


async def interrupted(store: Store) -> None:
    """Of one model the last blob comes and nobody is told of it; of two others a blob is lost, or cut off."""
    for name in ("lost", "cut"):
        await pull(store, name, name)
    await store.put_manifest(NAMES["late"], manifest_of(content("late"), config=None))
    if store.blobs.size(Digest.of(content("late"))) is None:
        publish(store, content("late"))
    store.layout.blob(Digest.of(content("lost"))).unlink()
    os.truncate(store.layout.blob(Digest.of(content("cut"))), SIZE // 2)


class Source:
    """Another store, one of whose models comes as a folder and two in a tar, which is made before anything is armed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "source"
        self.tar = b""
        self.manifests_at = 0

    async def make(self) -> None:
        """Make the store and the tar; more than once is harmless."""
        self.folder.mkdir(parents=True, exist_ok=True)
        async with opened(self.folder) as store:
            await keep(store, NAMES["tar"], content("tar"), content("held"))
            await keep(store, NAMES["more"], content("more"), content("shared"))
            await keep(store, NAMES["dir"], content("dir"), content("shared"))
            bundle = Bundle.of(store, [NAMES["tar"], NAMES["more"]])
            self.tar = await tar_of(bundle)
            self.manifests_at = min(one.offset for one in bundle.members if one.path.startswith("manifests/"))

    async def read(self, between: Callable[[], Awaitable[object]]) -> AsyncGenerator[bytes, None]:
        """Yield the tar; something happens when its blobs have come and its manifests have not."""
        yield self.tar[: self.manifests_at]
        await between()
        yield self.tar[self.manifests_at :]


async def imports(store: Store, source: Source) -> None:
    """A tar, during which the store drops a blob that the tar has too; then a folder."""
    tell(store, "holder", kept=False)
    chunks = source.read(lambda: store.remove(NAMES["holder"]))
    await import_tar(chunks, store, reserving(store), silent)
    await import_folder(source.folder / "store", store, reserving(store), silent, [NAMES["dir"]])
    for name in ("tar", "more", "dir"):
        tell(store, name, kept=True)


async def collects(folder: Path) -> None:
    """Drop leftovers, what nobody names, and the least recently used models."""
    async with kept(folder, max_size=MAX_SIZE, loose_retention=3600, partial_retention=3600) as one:
        for name in ("pinned", "old", "lost", "cut", "late", "tar", "index", "plain", "more", "dir"):
            one.use(name)
            tell(one.store, name, kept=name in GC_KEEPS)
        await one.keeper.collect()


async def scenario(folder: Path, source: Source) -> None:
    """Change the store in ``folder`` in every way there is."""
    async with opened(folder) as store:
        await pulls(store)
        await changes(store)
        await interrupted(store)
    async with opened(folder) as store:
        for name in ("lost", "cut"):
            await pull(store, name, name)
        await imports(store, source)
    await collects(folder)


async def main(folder: Path, armed: Mapping[str, int]) -> None:
    """Arm the points, and run."""
    source = Source(folder)
    await source.make()
    for point, times in armed.items():
        faultpoints.arm(point, times)
    await scenario(folder, source)


def run(folder: Path, point: str, times: int) -> None:
    """Be killed at a point."""
    asyncio.run(main(folder, {point: times}))


def count(folder: Path) -> dict[str, int]:
    """Run to the end; return how often each point was passed."""
    often = 1_000_000
    asyncio.run(main(folder, dict.fromkeys(points(), often)))
    return {point: often - faultpoints.left(point) for point in points()}


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
        sys.exit("the end was reached")
    sys.stdout.write(json.dumps(count(Path(sys.argv[1])), indent=1))
