"""Manifests at rest, and an index of them in memory."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from mirror.faultpoints import passing
from mirror.store.layout import Layout, write_whole
from mirror.values import MANIFEST_TYPES, MAX_MANIFEST_BYTES, Descriptor, Digest, InvalidManifest, Manifest, ModelName

_MOST_BLOBS = 100_000
"""Of one index; indexes of indexes have no natural end."""


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """What the index knows of one manifest. ``written_at`` is an aware UTC instant; ``size`` is the model's."""

    name: ModelName
    digest: Digest
    size: int
    written_at: datetime
    blobs: tuple[Descriptor, ...]
    path: Path


class ManifestShelf:
    """Manifests in one four-level tree, found by name whatever its letter case, and by digest.

    There are two: complete models, and those that wait for their blobs. The index is of the event loop's
    thread; ``load`` and ``write`` block on the disk and run in a thread.
    """

    def __init__(self, layout: Layout, base: Path) -> None:
        self._layout = layout
        self._base = base
        self._by_name: dict[ModelName, StoredManifest] = {}
        self._twins: list[StoredManifest] = []
        self._naming: dict[Digest, tuple[ModelName, ...]] = {}
        self._indexes: set[ModelName] = set()
        self._raw: dict[Path, Manifest] = {}

    def load(self) -> list[tuple[Path, str]]:
        """Read the whole tree; return what is odd about it as (path, problem). What is odd is left alone.

        Of names that differ in letter case only, which this shelf never makes, the first is found; the others
        still keep their blobs.
        """
        odd = []
        for name in self._layout.names(self._base):
            path = self._base.joinpath(name.host, name.namespace, name.model, name.tag)
            try:
                stored, manifest = read_stored(name, path)
            except (InvalidManifest, OSError) as error:
                odd.append((path, f"is not a manifest: {error}"))
                continue
            self.found(stored, manifest)
            if stored in self._twins:
                odd.append((path, f"differs from {self._by_name[name.folded].path} in letter case only"))
        return odd

    def found(self, stored: StoredManifest, manifest: Manifest) -> None:
        """Put into the index what somebody else wrote, instead of what was at its path."""
        self.forget(stored.path)
        if stored.name.folded in self._by_name:
            self._twins.append(stored)
        else:
            self._index(stored)
            self._keep(stored.path, manifest)

    def forget(self, path: Path) -> StoredManifest | None:
        """Take out of the index what somebody else removed; one that differs in letter case only takes its place."""
        gone = next((one for one in self._twins if one.path == path), None)
        if gone is not None:
            self._twins.remove(gone)
            return gone
        gone = self._by_name.get(ModelName(*path.relative_to(self._base).parts).folded)
        if gone is None or gone.path != path:
            return None
        self._unindex(gone)
        self._raw.pop(path, None)
        heir = next((one for one in self._twins if one.name.folded == gone.name.folded), None)
        if heir is not None:
            self._twins.remove(heir)
            self._index(heir)
        return gone

    def find(self, name: ModelName) -> StoredManifest | None:
        """Return what the index has under ``name``, comparing without letter case."""
        return self._by_name.get(name.folded)

    def read(self, stored: StoredManifest) -> Manifest | None:
        """Return the manifest itself; None when the file is gone or is another one by now."""
        kept = self._raw.get(stored.path)
        if kept is None or kept.digest != stored.digest:
            try:
                kept = read_manifest(stored.path)
            except (OSError, InvalidManifest):
                return None
            self._keep(stored.path, kept)
        return kept if kept.digest == stored.digest else None

    def find_digest(self, digest: Digest) -> StoredManifest | None:
        """Return a manifest by the digest of its bytes."""
        return next((one for one in self if one.digest == digest), None)

    def write(self, name: ModelName, manifest: Manifest) -> None:
        """Put the raw bytes in place, whole or not at all. Blocks; the index is for ``note`` to change."""
        write_whole(self._path(name), manifest.raw, self._layout.temporary / uuid4().hex, self._layout.share)

    def note(self, name: ModelName, manifest: Manifest) -> StoredManifest:
        """Put what ``write`` wrote into the index; a name that is known keeps the letter case it has on disk."""
        known = self._by_name.get(name.folded)
        stored = _described(known.name if known else name, manifest, self._path(name))
        if known is not None:
            self._unindex(known)
        self._index(stored)
        self._keep(stored.path, manifest)
        return stored

    def remove(self, name: ModelName) -> StoredManifest | None:
        """Take a manifest off the disk and out of the index, with the folders it leaves empty.

        Raises OSError; it is then still in both.
        """
        stored = self._by_name.get(name.folded)
        if stored is not None:
            stored.path.unlink(missing_ok=True)
            passing("unshelve.unlinked")
            self._unindex(stored)
            self._raw.pop(stored.path, None)
            with suppress(OSError):
                for folder in list(stored.path.parents)[:3]:
                    folder.rmdir()
                    passing("unshelve.folder")
        return stored

    def naming(self, digest: Digest) -> list[StoredManifest]:
        """Return the manifests that name a blob."""
        return [self._by_name[name] for name in self._naming.get(digest, ())]

    def blobs(self) -> Iterator[Descriptor]:
        """Yield what every manifest on disk names, also those that no name finds."""
        for stored in (*self, *self._twins):
            yield from stored.blobs

    def names(self, digest: Digest) -> bool:
        """Say whether a manifest on disk names a blob, also one that no name finds."""
        return digest in self._naming or any(blob.digest == digest for one in self._twins for blob in one.blobs)

    def indexes(self) -> list[StoredManifest]:
        """Return those that name manifests."""
        return [self._by_name[name] for name in self._indexes] + [one for one in self._twins if _is_index(one)]

    @property
    def twins(self) -> tuple[StoredManifest, ...]:
        """Those that no name finds, because another differs in letter case only."""
        return tuple(self._twins)

    def __iter__(self) -> Iterator[StoredManifest]:
        return iter(tuple(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def _index(self, stored: StoredManifest) -> None:
        key, naming = stored.name.folded, self._naming
        self._by_name[key] = stored
        if _is_index(stored):
            self._indexes.add(key)
        for blob in stored.blobs:
            naming[blob.digest] = (*naming.get(blob.digest, ()), key)

    def _unindex(self, stored: StoredManifest) -> None:
        key = stored.name.folded
        del self._by_name[key]
        self._indexes.discard(key)
        for blob in stored.blobs:
            others = tuple(name for name in self._naming.pop(blob.digest) if name != key)
            if others:
                self._naming[blob.digest] = others

    def _path(self, name: ModelName) -> Path:
        known = self._by_name.get(name.folded)
        return known.path if known else self._base.joinpath(name.host, name.namespace, name.model, name.tag)

    def _keep(self, path: Path, manifest: Manifest) -> None:
        """Remember the parsed manifest, at most 256 of them: what is asked again is asked soon."""
        self._raw.pop(path, None)
        while len(self._raw) >= 256:
            del self._raw[next(iter(self._raw))]
        self._raw[path] = manifest


def read_manifest(path: Path) -> Manifest:
    """Read a file as a manifest, not more of it than a manifest can have. Raises OSError, InvalidManifest."""
    with open(path, "rb", opener=_not_waiting) as file:
        return Manifest.parse(file.read(MAX_MANIFEST_BYTES + 1))


def _not_waiting(path: str, flags: int) -> int:
    """Open it even where it is a pipe, which is none of the manifests there can be."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_stored(name: ModelName, path: Path) -> tuple[StoredManifest, Manifest]:
    """Read a file as the manifest of ``name``. Raises as ``read_manifest``."""
    manifest = read_manifest(path)
    return _described(name, manifest, path), manifest


def expanded(stored: StoredManifest | Manifest, child: Callable[[Digest], Manifest | None]) -> list[Descriptor]:
    """Return every blob of a model: those its manifest names and, for an index, those its manifests name.

    ``child`` reads a manifest that an index names; None where the blob is not here, or is none.
    """
    found = list(stored.blobs)
    for blob in found:  # it grows meanwhile, by what its own entries name
        if blob.media_type in MANIFEST_TYPES and len(found) < _MOST_BLOBS:
            named = child(blob.digest)
            found += named.blobs if named is not None else ()
    return found


def _is_index(stored: StoredManifest) -> bool:
    return any(blob.media_type in MANIFEST_TYPES for blob in stored.blobs)


def _described(name: ModelName, manifest: Manifest, path: Path) -> StoredManifest:
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return StoredManifest(name, manifest.digest, manifest.size, written, manifest.blobs, path)
