"""Checking every promise of the tree, byte by byte."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from mirror.store.layout import Layout
from mirror.store.manifests import read_manifest
from mirror.store.ollama import is_unfinished
from mirror.values import Digest, Invalid, InvalidManifest, Manifest, ModelName

_HASH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the tree that is not as promised."""

    path: Path
    what: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a verification is: bytes hashed so far, of how many."""

    done: int
    total: int


def verify(layout: Layout, stop: Callable[[], bool] = lambda: False) -> Iterator[Problem | Progress]:
    """Hash every blob and follow every manifest; yield what is wrong, and progress between. Blocks; changes nothing.

    Ends early once ``stop`` says so. A blob or manifest that goes away meanwhile is no problem, nor is what an Ollama
    that shares the tree has not finished.
    """
    sizes: dict[Digest, int] = {}
    blobs = []
    for path in sorted(layout.blobs.iterdir()) if layout.blobs.is_dir() else []:
        digest = _digest(path)
        if digest is None:
            if path.is_file() and not (layout.shared and is_unfinished(path.name)):
                yield Problem(path, "is no blob: its name is no digest as Ollama writes it")
        elif not path.is_file():
            if os.path.lexists(path):
                yield Problem(path, "has the name of a blob and is no file")
        else:
            blobs.append((path, digest))
            with suppress(FileNotFoundError):
                sizes[digest] = path.stat().st_size
    done, total = 0, sum(sizes.values())
    for path, digest in blobs:
        for step in _check_blob(path, digest):
            if stop():
                return
            if isinstance(step, Problem):
                yield step
            else:
                done += step
                yield Progress(done, total)
    yield from _check_manifests(layout, sizes)


def _digest(path: Path) -> Digest | None:
    try:
        digest = Digest.parse(path.name)
    except Invalid:
        return None
    return digest if path.name == digest.filename else None


def _check_blob(path: Path, digest: Digest) -> Iterator[int | Problem]:
    sha256 = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_HASH_BYTES):
                sha256.update(chunk)
                yield len(chunk)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Problem(path, f"cannot be read: {error.strerror}")
        return
    if sha256.hexdigest() != digest.hex:
        yield Problem(path, f"has the wrong bytes: they hash to sha256:{sha256.hexdigest()}")


def _check_manifests(layout: Layout, sizes: dict[Digest, int]) -> Iterator[Problem]:
    for path in sorted(p for p in layout.manifests.rglob("*") if not p.is_dir()):
        try:
            manifest = _manifest(path, path.relative_to(layout.manifests).parts)
        except (Invalid, OSError) as error:
            if os.path.lexists(path):
                yield Problem(path, f"is no manifest: {error}")
            continue
        for blob in manifest.blobs:
            size = sizes.get(blob.digest)
            if size is None and not os.path.exists(layout.blob(blob.digest)) and path.exists():
                yield Problem(path, f"names {blob.digest}, which is not here")
            elif size is not None and size != blob.size:
                yield Problem(path, f"names {blob.digest} with {blob.size} bytes; it has {size}")


def _manifest(path: Path, parts: tuple[str, ...]) -> Manifest:
    if len(parts) != 4:
        raise InvalidManifest("/".join(parts), "host/namespace/model/tag")
    ModelName(*parts)
    if path.exists() and not path.is_file():
        raise InvalidManifest(path.name, "a file")
    return read_manifest(path)


@asynccontextmanager
async def running_verify(layout: Layout) -> AsyncIterator[AsyncIterator[Problem | Progress]]:
    """Verify in a thread; leaving the context ends it. At most a few steps are ahead of who reads them."""
    loop, stopped = asyncio.get_running_loop(), Event()
    with ThreadPoolExecutor(1, thread_name_prefix="verify") as threads:
        steps = verify(layout, stopped.is_set)

        async def in_turn() -> AsyncIterator[Problem | Progress]:
            while (step := await loop.run_in_executor(threads, next, steps, None)) is not None:
                yield step

        try:
            yield in_turn()
        finally:
            stopped.set()
