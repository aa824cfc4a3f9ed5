"""Models folders of other Ollamas: served from where they lie, and never written to."""

import asyncio
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Event
from uuid import uuid4

from mirror.store.blobs import OpenBlob
from mirror.store.layout import Layout
from mirror.store.manifests import ManifestShelf, StoredManifest
from mirror.store.proofs import Proofs
from mirror.store.rehash import Pace, rehash
from mirror.store.rescan import Look, Rescan
from mirror.store.stamp import Stamp
from mirror.threads import in_thread
from mirror.values import MAX_MANIFEST_BYTES, Digest, InvalidManifest, Manifest, ModelName

_LOOK_S = 10.0
_SAVE_S = 5.0


class _Folder:
    """One of them, as it was at the last look. A folder that is not there holds nothing."""

    def __init__(self, layout: Layout) -> None:
        self.root = layout.root
        self.shelf = ManifestShelf(layout, layout.manifests)
        self.files: dict[Digest, Stamp] = {}
        self._blobs = layout.blobs
        self._rescan = Rescan(layout.manifests, self.shelf)

    def path(self, digest: Digest) -> Path:
        return self._blobs / digest.filename

    def look(self) -> tuple[Look, dict[Digest, Stamp]]:
        """Look at all of it; blocks. A link counts for what it leads to."""
        files = {}
        with suppress(OSError), os.scandir(self._blobs) as entries:
            for entry in entries:
                with suppress(ValueError, OSError):
                    digest, found = Digest.parse(entry.name), entry.stat()
                    if entry.name == digest.filename and stat.S_ISREG(found.st_mode):
                        files[digest] = Stamp.of(found)
        return self._rescan.look(), files

    def take_in(self, look: Look, files: dict[Digest, Stamp]) -> None:
        self._rescan.take_in(look)
        self.files = files


class Extra:
    """Folders that are only read, asked in the order they are given in. For the event loop's thread.

    A blob counts once its file was hashed here and only while that is the same file, for an old Ollama wrote chunks
    straight into final names, and what lies there may change at any time. ``own`` says which blobs the mirror has
    itself, with their sizes: a model may be whole with those.
    """

    def __init__(self, ours: Layout, folders: Sequence[Path], own: Callable[[Digest], int | None]) -> None:
        apart = dict.fromkeys(one.absolute() for one in folders if one.resolve() != ours.root.resolve())
        self._folders = [_Folder(Layout(one, ours.state)) for one in apart]
        self._ours = ours
        self._own = own
        self._proofs = Proofs(ours.state / "proven.json")
        self._to_prove: deque[tuple[Path, Stamp]] = deque()
        self._looked = asyncio.Event()
        self._looking = asyncio.Lock()
        self._saved_at = time.monotonic()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="extra")

    def __bool__(self) -> bool:
        return bool(self._folders)

    def open(self, digest: Digest) -> OpenBlob | None:
        """Open a proven blob for reading; None when no folder has it."""
        for path, stamp in self._proven(digest):
            with suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                blob = OpenBlob(_let_go, digest, fd, stamp.size, stamp)
                if blob.sound:
                    return blob
                blob.close()
        return None

    def size(self, digest: Digest) -> int | None:
        """Return a proven blob's size in bytes; None when no folder has it."""
        with self.open(digest) or nullcontext() as blob:
            return blob.size if blob else None

    def read(self, digest: Digest, limit: int) -> bytes | None:
        """Return a small proven blob's content; None when no folder has it or it is larger than ``limit`` bytes."""
        with self.open(digest) or nullcontext() as blob:
            return os.pread(blob.fd, blob.size, 0) if blob and blob.size <= limit else None

    def find(self, name: ModelName) -> StoredManifest | None:
        """Return a model by its name, whole or not; a whole one first."""
        found = [stored for folder in self._folders if (stored := folder.shelf.find(name)) is not None]
        return next((one for one in found if not self.missing(one)), found[0] if found else None)

    def find_whole(self, name: ModelName) -> StoredManifest | None:
        """Return a model of which every blob can be served."""
        found = self.find(name) if self._folders else None
        return found if found is not None and not self.missing(found) else None

    def manifest(self, stored: StoredManifest) -> Manifest | None:
        """Return the manifest of what was found; None when it has gone meanwhile."""
        return next((one.shelf.read(stored) for one in self._folders if one.root == self.folder_of(stored)), None)

    def by_digest(self, digest: Digest) -> Manifest | None:
        """Return a manifest by the digest of its bytes, also one that an index names."""
        for folder in self._folders:
            stored = folder.shelf.find_digest(digest)
            manifest = folder.shelf.read(stored) if stored else None
            if manifest is not None:
                return manifest
        raw = self.read(digest, MAX_MANIFEST_BYTES)
        with suppress(InvalidManifest):
            return Manifest.parse(raw) if raw and raw.lstrip()[:1] == b"{" else None
        return None

    def models(self) -> list[StoredManifest]:
        """Return one model of each name, whole or not."""
        names = {stored.name.folded: stored.name for folder in self._folders for stored in folder.shelf}
        return [stored for name in names.values() if (stored := self.find(name)) is not None]

    def folder_of(self, stored: StoredManifest) -> Path | None:
        """Return the folder that a model lies in; None for the mirror's own."""
        return next((one.root for one in self._folders if stored.path.is_relative_to(one.root)), None)

    def missing(self, stored: StoredManifest) -> list[Digest]:
        """Return the blobs a manifest names that neither a folder has, proven, nor the mirror."""
        return [
            blob.digest
            for blob in stored.blobs
            if not any(stamp.size == blob.size for _, stamp in self._proven(blob.digest))
            and self._own(blob.digest) != blob.size
        ]

    async def look(self) -> None:
        """Take note of what has changed in the folders; what has changed is to be proven anew."""
        async with self._looking:  # else an older look could be taken in after a newer one
            for folder in self._folders:
                folder.take_in(*await in_thread(self._threads, folder.look))
            self._to_prove = deque(self._unproven())
            self._looked.set()

    async def run(self) -> None:
        """Look every few seconds, and hash what is new, one file at a time and small ones first; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_again_and_again(), name="extra: look")
            group.create_task(self._prove_what_is_new(), name="extra: prove")

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_again_and_again(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def _prove_what_is_new(self) -> None:
        while True:
            if self._to_prove:
                await self._prove(*self._to_prove.popleft())
            if self._proofs.changed and (not self._to_prove or time.monotonic() - self._saved_at > _SAVE_S):
                await self._save()
            if not self._to_prove:
                self._looked.clear()
                await self._looked.wait()

    def _unproven(self) -> list[tuple[Path, Stamp]]:
        """Return the files of which nobody knows what they hash to, small ones first. One of each blob will do."""
        found = [
            (path, stamp)
            for folder in self._folders
            for digest, stamp in folder.files.items()
            if stamp.settled
            and self._proofs.of(path := folder.path(digest), stamp) is None
            and next(self._proven(digest), None) is None
        ]
        return sorted(found, key=lambda one: one[1].size)

    async def _prove(self, path: Path, stamp: Stamp) -> None:
        stop = Event()
        digest = await in_thread(self._threads, lambda: _hashed(path, stamp, stop), stop.set)
        if digest is not None:
            self._proofs.note(path, stamp, digest)

    async def _save(self) -> None:
        """Write down what is proven. Where that cannot be done, the next start hashes again."""
        there = {folder.root: folder for folder in self._folders if folder.files}
        files = {folder.path(digest) for folder in there.values() for digest in folder.files}
        self._proofs.drop(lambda path: path.parent.parent in there and path not in files)
        with suppress(OSError):
            await in_thread(self._threads, lambda: self._proofs.save(self._ours.temporary / uuid4().hex))
        self._saved_at = time.monotonic()

    def _proven(self, digest: Digest) -> Iterator[tuple[Path, Stamp]]:
        for folder in self._folders:
            stamp = folder.files.get(digest)
            if stamp is not None and self._proofs.of(path := folder.path(digest), stamp) == digest:
                yield path, stamp


def _hashed(path: Path, stamp: Stamp, stop: Event) -> Digest | None:
    """Return what a file hashes to; None where it cannot be read, or was not the same file all the while."""
    try:
        digest = rehash(path, Pace(None, stop)) if Stamp.of(path.stat()) == stamp else None
        return digest if Stamp.of(path.stat()) == stamp else None
    except OSError:
        return None


def _let_go(_: OpenBlob) -> None:
    pass
