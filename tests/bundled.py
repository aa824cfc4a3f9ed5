"""Bundles as bytes: made by a store, made by hand, taken into a store; and what a folder holds, to compare."""

import asyncio
import json
import sys
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from mirror import faultpoints
from mirror.bundles import Bundle, Imported, Reserve, import_tar
from mirror.events import Event
from mirror.store import Promise, Store
from mirror.values import Digest, Manifest, ModelName
from mirror.values.manifest import OCI_INDEX
from tests import stored
from tests.stored import NAME, WEIGHTS, described, keep, manifest_of, publish

OTHER = NAME.with_tag("other")
LONG = ModelName("h" * 200, "n" * 80, "m" * 80, "t" * 80)
INDEX = NAME.with_tag("index")
MANIFEST = manifest_of(WEIGHTS)
MANIFEST_PATH = "manifests/registry.ollama.ai/library/tiny/latest"
CHILD = manifest_of(b"of the child")


@asynccontextmanager
async def opened(folder: Path, heard: list[Event] | None = None) -> AsyncIterator[Store]:
    """The store in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    async with stored.opened(folder, heard) as store:
        yield store


def index_of(*children: Manifest) -> Manifest:
    """An index that names these manifests."""
    said = [described(child.raw, mediaType=child.media_type) for child in children]
    return Manifest.parse(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": said}).encode())


async def keep_many(store: Store) -> list[ModelName]:
    """Models with all that is odd: a blob that two share, an empty one, long names, an index; return their names."""
    await keep(store, NAME, WEIGHTS)
    await keep(store, OTHER, WEIGHTS, b"")
    await keep(store, LONG, b"long")
    for content in (b"of the child", CHILD.raw):
        await store.arrived(publish(store.layout, content))
    await store.put_manifest(INDEX, index_of(CHILD))
    return [NAME, OTHER, LONG, INDEX]


async def tar_of(bundle: Bundle, start: int = 0) -> bytes:
    """The bytes of a bundle from ``start`` on."""
    return b"".join([piece async for piece in bundle.pieces(start)])


async def good(folder: Path) -> bytes:
    """A bundle of one model."""
    async with opened(folder) as store:
        await keep(store, NAME, WEIGHTS)
        return await tar_of(Bundle.of(store, [NAME]))


async def in_chunks(raw: bytes, size: int = 1 << 16) -> AsyncGenerator[bytes, None]:
    """These bytes as they come from a file or a socket."""
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


def reserving(store: Store) -> Reserve:
    """Room that is there or is not."""

    async def reserve(blobs: Mapping[Digest, int]) -> Promise:
        return store.room.promise(blobs)

    return reserve


def silent(done: int, total: int | None) -> None:
    """Nobody looks at how far it is."""


async def take(store: Store, raw: bytes, chunk: int = 1 << 16) -> Imported:
    """Import a tar."""
    return await import_tar(in_chunks(raw, chunk), store, reserving(store), silent)


def entry(path: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> bytes:
    """One file of a tar; ``more`` are fields of its header, which may well lie."""
    header = tarfile.TarInfo(path)
    header.size, header.type = len(content), kind
    for key, value in more.items():
        setattr(header, key, value)
    return header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def tar(*entries: bytes) -> bytes:
    """A whole tar of these entries."""
    return b"".join(entries) + bytes(1024)


def blob(content: bytes) -> bytes:
    """The entry of a blob."""
    return entry(f"blobs/{Digest.of(content).filename}", content)


def manifest(one: Manifest = MANIFEST, path: str = MANIFEST_PATH) -> bytes:
    """The entry of a manifest."""
    return entry(path, one.raw)


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder: files with their bytes, folders with None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def tree(folder: Path) -> dict[str, bytes | None]:
    """What a store below ``folder`` holds for Ollama."""
    return everything(folder / "store")


class Counted:
    """Room that is always there, and a record of what was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[Digest, int]] = []
        self.on_disk: list[Digest] = []
        self.closed = 0

    async def __call__(self, blobs: Mapping[Digest, int]) -> "Counted":
        """Reserve."""
        self.asked.append(dict(blobs))
        return self

    def landed(self, digest: Digest) -> None:
        """A blob is on the disk."""
        self.on_disk.append(digest)

    def close(self) -> None:
        """No more is needed."""
        self.closed += 1


async def import_and_be_killed(folder: Path, raw: bytes, point: str) -> None:
    """Import into a store, and die at ``point`` on the way."""
    async with opened(folder) as store:
        faultpoints.arm(point)
        await take(store, raw)


if __name__ == "__main__":
    asyncio.run(import_and_be_killed(Path(sys.argv[1]), sys.stdin.buffer.read(), sys.argv[2]))
