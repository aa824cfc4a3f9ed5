"""What has changed in a tree of manifests since the last look, where others write too."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mirror.store.manifests import ManifestShelf, StoredManifest, read_stored
from mirror.store.ollama import mentioned
from mirror.store.stamp import Stamp
from mirror.values import MAX_MANIFEST_BYTES, Digest, Invalid, Manifest, ModelName


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found that the shelf does not know: manifests that came or changed, and paths that are gone.

    ``mentioned`` are the digests in files that are no manifests to us. ``problem`` is why something could not be looked
    at: nothing is said to be gone then.
    """

    came: tuple[tuple[StoredManifest, Manifest], ...]
    gone: tuple[Path, ...]
    mentioned: frozenset[Digest]
    problem: OSError | None
    stamps: dict[Path, Stamp]


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
        self.mentioned: frozenset[Digest] = frozenset()

    def look(self) -> Look:
        """Look at every file. A tree that is not there is empty."""
        came, stamps, seen, unread, problems = [], {}, set(), set[Digest](), list[OSError]()
        known = {stored.path: stored for stored in (*self._shelf, *self._shelf.twins)}
        for path, stamp in _files(self._base, 4, problems):
            seen.add(path)
            if self._stamps.get(path) == stamp:
                stamps[path] = stamp
                continue
            try:
                read = self._read(path, unread)
            except OSError as error:
                problems.append(error)
                continue
            if read is None:
                continue
            if stamp.settled:
                stamps[path] = stamp
            if read[0] != known.get(path):
                came.append(read)
        gone = tuple(path for path in known if path not in seen) if not problems else ()
        return Look(tuple(came), gone, frozenset(unread), problems[0] if problems else None, stamps)

    def _read(self, path: Path, unread: set[Digest]) -> tuple[StoredManifest, Manifest] | None:
        """Read one file; None where it is no manifest, and then ``unread`` gets the digests in it. Raises OSError."""
        try:
            return read_stored(ModelName(*path.relative_to(self._base).parts), path)
        except Invalid:
            unread |= mentioned(path, MAX_MANIFEST_BYTES)
            return None

    def take_in(self, look: Look) -> list[StoredManifest]:
        """Have the shelf say what was found; return the manifests of names that it knows no more."""
        self._stamps, self.mentioned = look.stamps, look.mentioned
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


def _files(folder: Path, levels: int, problems: list[OSError]) -> Iterator[tuple[Path, Stamp]]:
    """Yield the files ``levels`` down, in the order of their names; what cannot be looked at is in ``problems``."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        # A link to a folder that is not mounted now must not look like models that were removed.
        if folder.is_symlink() or not isinstance(error, FileNotFoundError | NotADirectoryError):
            problems.append(error)
        return
    for name in names:
        path = folder / name
        if levels > 1:
            yield from _files(path, levels - 1, problems)
            continue
        try:
            found = path.stat()
        except OSError as error:
            if path.is_symlink() or not isinstance(error, FileNotFoundError):
                problems.append(error)  # it leads to where nothing is mounted now, or cannot be looked at
            continue
        if stat.S_ISREG(found.st_mode):
            yield path, Stamp.of(found)


def dangles(base: Path) -> bool:
    """Say whether a link in a tree of manifests leads to nothing: then not every model can be known. Blocks."""
    return any(
        path.is_symlink() and not path.exists()
        for folder, folders, names in os.walk(base)
        for path in (Path(folder, one) for one in (*folders, *names))
    )
