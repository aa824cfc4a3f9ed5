"""Models small enough for a test, and a store to keep them in."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from mirror.events import Event, Events
from mirror.store import Layout, Partial, Problem, Store, verify
from mirror.values import ByteRange, Digest, Manifest, ModelName, RangeSet

NAME = ModelName.parse("tiny")
WEIGHTS, CONFIG = b"weights " * 4000, b'{"model_format": "gguf"}'


def manifest_of(*layers: bytes, config: bytes | None = CONFIG, **more: object) -> Manifest:
    """A manifest that names these contents; ``more`` are further keys, or others in place of these."""
    said: dict[str, object] = {"schemaVersion": 2, "layers": [described(one) for one in layers]}
    if config is not None:
        said["config"] = described(config)
    return Manifest.parse(json.dumps(said | more).encode())


def described(content: bytes, **more: object) -> dict[str, object]:
    """What a manifest says of ``content``."""
    said = {"mediaType": "application/vnd.ollama.image.model", "digest": str(Digest.of(content)), "size": len(content)}
    return said | more


def publish(layout: Layout, content: bytes) -> Digest:
    """Bring ``content`` in as a fill does: written, recorded, proven, published."""
    digest = Digest.of(content)
    partial = Partial.open(layout, digest, len(content))
    try:
        partial.write(0, content)
        partial.record(RangeSet([ByteRange(0, len(content))]))
        partial.advance(len(content))
        partial.publish()
    finally:
        partial.close()
    return digest


async def keep(store: Store, name: ModelName, *layers: bytes) -> Manifest:
    """Put a whole model into the store, manifest first, as a pull does."""
    manifest = manifest_of(*layers)
    await store.put_manifest(name, manifest)
    for content in (*layers, CONFIG):
        await store.arrived(publish(store.layout, content))
    return manifest


@asynccontextmanager
async def opened(folder: Path, heard: list[Event] | None = None) -> AsyncIterator[Store]:
    """The store in ``folder``, taken for this test."""
    events = Events()
    if heard is not None:
        events.tap(heard.append)
    store = await Store.open(folder / "store", folder / "state", events, holder="a test")
    try:
        yield store
    finally:
        store.close()


def made(folder: Path) -> Layout:
    """The folders of an empty store."""
    layout = Layout(folder / "store", folder / "state")
    layout.make()
    return layout


def problems(layout: Layout) -> list[str]:
    """What a verification finds, without the folder in front."""
    found = [step for step in verify(layout) if isinstance(step, Problem)]
    return [f"{one.path.relative_to(layout.root)} {one.what}" for one in found]


def files(folder: Path) -> set[str]:
    """Every file below ``folder``, by its path in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def digests(contents: Iterable[bytes]) -> set[str]:
    """The names of blobs with these contents."""
    return {Digest.of(content).filename for content in contents}
