"""Everything the store has on disk, counted."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.store.layout import Layout, blob_files
from mirror.store.ollama import is_unfinished
from mirror.values import Digest


@dataclass(frozen=True, slots=True)
class OnDisk:
    """One file: the bytes it takes, and when it was last written (seconds since the epoch)."""

    size: int
    written_at: float


@dataclass(frozen=True, slots=True)
class Census:
    """What there is: proven blobs, unfinished ones (the bytes of them that are on disk), what was put aside.

    ``ollama_at``: when an Ollama last wrote to a blob of its own that is not finished (seconds since the epoch).
    """

    blobs: dict[Digest, OnDisk]
    partials: dict[Digest, OnDisk]
    quarantine: dict[Path, OnDisk]
    ollama_at: float = 0.0


def census(layout: Layout) -> Census:
    """Look at every file. Blocks; changes nothing. What cannot be looked at is not counted."""
    blobs: dict[Digest, OnDisk] = {}
    with suppress(OSError):
        blobs.update((digest, OnDisk(found.st_size, found.st_mtime)) for digest, found in blob_files(layout.blobs))
    partials = {}
    for entry in _files(layout.partials):
        with suppress(ValueError, OSError):
            found = entry.stat()
            partials[Digest.parse(f"sha256:{entry.name}")] = OnDisk(found.st_blocks * 512, found.st_mtime)
    quarantine = {}
    for entry in _files(layout.quarantine):
        with suppress(OSError):
            found = entry.stat()
            quarantine[Path(entry.path)] = OnDisk(found.st_size, found.st_mtime)
    return Census(blobs, partials, quarantine, _ollama_at(layout) if layout.shared else 0.0)


def _ollama_at(layout: Layout) -> float:
    latest = 0.0
    for entry in _files(layout.blobs):
        if is_unfinished(entry.name):
            with suppress(OSError):
                latest = max(latest, entry.stat().st_mtime)
    return latest


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_file():
                    yield entry
