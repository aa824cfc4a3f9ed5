"""What has changed in a tree of manifests since the last look, where others write too."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mirror.store.manifests import ManifestShelf, StoredManifest, read_stored
from mirror.values import Invalid, Manifest, ModelName

_SETTLED_NS = 2_000_000_000
"""A file may be written twice within one tick of its file system's clock; one this old was not."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What of a file changes with its content: its size in bytes, when it was written (ns), and which file it is."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """Take it from what stat says."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)

    @property
    def settled(self) -> bool:
        """Whether a change from now on would show; false of a file that was written only just now."""
        return time.time_ns() - self.mtime_ns > _SETTLED_NS


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found that the shelf does not know: manifests that came or changed, and paths that are gone."""

    came: tuple[tuple[StoredManifest, Manifest], ...]
    gone: tuple[Path, ...]
    stamps: dict[Path, Stamp]

    def __bool__(self) -> bool:
        return bool(self.came or self.gone)


class Rescan:
    """Compares a four-level tree with the shelf that indexes it, reading only what has changed.

    ``look`` blocks and changes nothing, so it may be given up at any moment; the shelf must not change meanwhile.
    ``take_in`` is for the thread of the shelf. What does not parse is read again at every look, as Ollama does not
    write its manifests at one go; until then what the shelf had at that path stays.
    """

    def __init__(self, base: Path, shelf: ManifestShelf) -> None:
        self._base = base
        self._shelf = shelf
        self._stamps: dict[Path, Stamp] = {}

    def look(self) -> Look:
        """Look at every file. Raises OSError where the tree cannot be listed; a tree that is not there is empty."""
        came, stamps, seen = [], {}, set()
        known = {stored.path: stored for stored in (*self._shelf, *self._shelf.twins)}
        for path, stamp in _files(self._base, 4):
            seen.add(path)
            if self._stamps.get(path) == stamp:
                stamps[path] = stamp
                continue
            try:
                stored, manifest = read_stored(ModelName(*path.relative_to(self._base).parts), path)
            except (Invalid, OSError):
                continue
            if stamp.settled:
                stamps[path] = stamp
            if stored != known.get(path):
                came.append((stored, manifest))
        return Look(tuple(came), tuple(path for path in known if path not in seen), stamps)

    def take_in(self, look: Look) -> list[StoredManifest]:
        """Have the shelf say what was found; return the manifests of names that it knows no more."""
        self._stamps = look.stamps
        gone = [stored for path in look.gone if (stored := self._shelf.forget(path)) is not None]
        for stored, manifest in look.came:
            self._shelf.found(stored, manifest)
        return [stored for stored in gone if self._shelf.find(stored.name) is None]

    def differs(self, name: ModelName) -> bool:
        """Say whether the disk has something else under a name than the last look found. One stat."""
        known = self._shelf.find(name)
        path = known.path if known else self._base.joinpath(name.host, name.namespace, name.model, name.tag)
        try:
            return Stamp.of(path.stat()) != self._stamps.get(path)
        except OSError:
            return known is not None


def _files(folder: Path, levels: int) -> Iterator[tuple[Path, Stamp]]:
    """Yield the files ``levels`` down, in the order of their names. Raises OSError, but not for what goes meanwhile."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = folder / name
        if levels > 1:
            yield from _files(path, levels - 1)
        elif path.is_file():
            try:
                yield path, Stamp.of(path.stat())
            except FileNotFoundError:
                continue
