"""The store: whole, proven blobs and complete models, and the order in which they come and go."""

import asyncio
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Self
from uuid import uuid4

from mirror.errors import StoreFull, StoreUnusable
from mirror.events import Events, ModelRemoved, ModelStored
from mirror.store.blobs import BlobStore, OpenBlob
from mirror.store.layout import Layout, write_whole
from mirror.store.lock import StoreLock
from mirror.store.manifests import ManifestShelf, StoredManifest, named
from mirror.store.partial import full, require_room, tidy
from mirror.threads import in_thread
from mirror.values import MAX_MANIFEST_BYTES, Digest, InvalidManifest, Manifest, ModelName


class Store:
    """Blobs first, manifest last; on removal manifest first. So a name always means that all of it is here.

    ``complete`` holds the models that are whole, ``staged`` the manifests that wait for blobs. Everything is for
    the event loop's thread; what blocks on the disk goes to a thread inside. Changes to the tree are in a row, and
    a caller who is cancelled leaves the index saying what the disk says.
    """

    def __init__(self, layout: Layout, events: Events, lock: StoreLock) -> None:
        self.layout = layout
        self.lock = lock
        self.blobs = BlobStore(layout)
        self.complete = ManifestShelf(layout, layout.manifests)
        self.staged = ManifestShelf(layout, layout.staged)
        self.problems: list[str] = []
        self._events = events
        self._changes = asyncio.Lock()
        self._lacking: dict[Digest, set[Digest]] = {}
        """Of staged manifests that were looked at: what they lacked then and has not arrived since."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    @classmethod
    async def open(cls, root: Path, state: Path, events: Events, *, holder: str, create: bool = True) -> Self:
        """Take the store for this process and mend what a crash left.

        Raises:
            StoreBusy: another process has it.
            StoreUnusable: it is not there (and ``create`` is false), or cannot be written.
        """
        layout = Layout(root, state)
        if not create and not layout.blobs.is_dir():
            raise StoreUnusable(f"there is no store at {root}")
        await asyncio.to_thread(layout.make)
        lock = StoreLock(state / "lock", holder).take()
        store = cls(layout, events, lock)
        try:
            await in_thread(store._thread, store._recover)
        except OSError as error:
            store.close()
            raise StoreUnusable(f"cannot tidy up {error.filename}: {error.strerror}") from error
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Give the store to the next process."""
        self._thread.shutdown()
        self.lock.release()

    def find(self, name: ModelName) -> StoredManifest | None:
        """Return what is known of a model: the newer manifest, whether or not its blobs are all here."""
        return self.staged.find(name) or self.complete.find(name)

    def read(self, stored: StoredManifest) -> Manifest | None:
        """Return the manifest of what ``find`` found; None when it has gone meanwhile."""
        shelf = self.staged if self.staged.find(stored.name) is stored else self.complete
        return shelf.read(stored)

    def by_digest(self, digest: Digest) -> Manifest | None:
        """Return a manifest by the digest of its bytes, also one that an index names."""
        for shelf in (self.complete, self.staged):
            stored = shelf.find_digest(digest)
            manifest = shelf.read(stored) if stored else None
            if manifest is not None:
                return manifest
        raw = self.blobs.read(digest, MAX_MANIFEST_BYTES)
        with suppress(InvalidManifest):
            return Manifest.parse(raw) if raw and raw.lstrip()[:1] == b"{" else None
        return None

    def size_of(self, digest: Digest, name: ModelName) -> int | None:
        """Return the size in bytes that a blob has, or shall have by the manifests there are.

        The word of ``name``'s own repository counts first: another's manifest may have it wrong.
        """
        size = self.blobs.size(digest)
        if size is not None:
            return size
        said = [one for shelf in (self.staged, self.complete) for one in shelf.naming(digest)]
        said.sort(key=lambda one: one.name.repository.lower() != name.repository.lower())
        return next((blob.size for one in said[:1] for blob in one.blobs if blob.digest == digest), None)

    def open_blob(self, digest: Digest) -> OpenBlob | None:
        """Open a blob for reading; None when it is not here.

        One that has another size than every manifest says was changed behind our back: it is put aside, and so
        is not here.
        """
        blob = self.blobs.open(digest)
        if blob is None:
            return None
        naming = [one for shelf in (self.complete, self.staged) for one in shelf.naming(digest)]
        said = {one.size for stored in naming for one in stored.blobs if one.digest == digest}
        if not said or blob.size in said:
            return blob
        blob.close()
        with suppress(OSError):
            self.layout.blob(digest).rename(self.layout.quarantine / digest.filename)
        return None

    async def put_manifest(self, name: ModelName, manifest: Manifest) -> None:
        """Keep a manifest: among the complete models when every blob is here, else staged until they are.

        Raises:
            StoreFull: the disk would not take it; the complete models are as they were.
        """
        async with self._changes:
            kept = self.complete.find(name)
            if kept is not None and kept.digest == manifest.digest:
                self._unstage(name)  # where there is one, the tag moved back
                return
            known = self.staged.find(name)
            if known is None or known.digest != manifest.digest:
                await self._write(self.staged, name, manifest)
            await self._promote(name)

    async def put_small_blob(self, content: bytes) -> Digest:
        """Keep ``content`` as a blob, as is done with the manifests an index names. Raises StoreFull."""
        digest = Digest.of(content)
        async with self._changes:
            if self.blobs.size(digest) is None:
                await self._put_small(digest, content)
        await self.arrived(digest)
        return digest

    async def arrived(self, digest: Digest) -> None:
        """A blob was published: models that waited only for it are complete now."""
        self.blobs.spare(digest)
        async with self._changes:
            for stored in self.staged.naming(digest):
                lacking = self._lacking.get(stored.digest)
                if lacking is not None:
                    lacking.discard(digest)
                if not lacking:
                    with suppress(StoreFull):
                        await self._promote(stored.name)

    async def remove(self, name: ModelName) -> int | None:
        """Take a model out, and the blobs nothing else names; return the bytes freed, None if it is not here.

        Raises:
            StoreFull: the tree cannot be written.
        """
        async with self._changes:
            try:
                gone = [shelf.remove(name) for shelf in (self.complete, self.staged)]
                found = [stored for stored in gone if stored is not None]
                if not found:
                    return None
                still = named((self.complete, self.staged))
                loose = {blob.digest for stored in found for blob in stored.blobs} - still
                freed = sum(self.blobs.drop(digest) for digest in loose)
            except OSError as error:
                raise full(error) from error
        self._events.publish(ModelRemoved(found[0].name, freed))
        return freed

    def problem(self) -> str | None:
        """Say why the store cannot be written now, in a phrase; None when it can. Looks at the disk."""
        try:
            with tempfile.TemporaryFile(dir=self.layout.temporary):
                pass
            for folder in (self.layout.blobs, self.layout.manifests):
                os.stat(folder)
                if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                    return f"{folder} cannot be read and written"
        except OSError as error:
            return f"{self.layout.root} cannot be written: {error.strerror}"
        return None

    def require_room(self, size: int) -> None:
        """Raise StoreFull unless the file system has room for ``size`` more bytes."""
        require_room(self.layout, size)

    def missing(self, stored: StoredManifest) -> list[Digest]:
        """Return the blobs a manifest names that are not here with the size it says."""
        return [blob.digest for blob in stored.blobs if self.blobs.size(blob.digest) != blob.size]

    async def _write(self, shelf: ManifestShelf, name: ModelName, manifest: Manifest) -> None:
        written = False

        def write() -> None:
            nonlocal written
            shelf.write(name, manifest)
            written = True

        try:
            try:
                await in_thread(self._thread, write)
            finally:
                if written:  # also where the caller was cancelled meanwhile: the index says what the disk says
                    shelf.note(name, manifest)
        except OSError as error:
            raise full(error) from error

    def _unstage(self, name: ModelName) -> None:
        try:
            self.staged.remove(name)
        except OSError as error:
            raise full(error) from error

    async def _promote(self, name: ModelName) -> None:
        """Move a staged manifest among the complete ones, if its blobs are all here now."""
        stored = self.staged.find(name)
        manifest = self.staged.read(stored) if stored else None
        if stored is None or manifest is None:
            return
        for blob in stored.blobs:
            self.blobs.spare(blob.digest)
        lacking = await in_thread(self._thread, lambda: self.missing(stored))
        if lacking:
            self._lacking[stored.digest] = set(lacking)
            return
        self._lacking.pop(stored.digest, None)
        await self._write(self.complete, name, manifest)
        self._unstage(name)
        self._events.publish(ModelStored(name, manifest.digest, manifest.size))

    async def _put_small(self, digest: Digest, content: bytes) -> None:
        """Write bytes that named themselves. Not by a Partial: a fill may be at work on the one of this digest."""
        target, temporary = self.layout.blob(digest), self.layout.temporary / uuid4().hex
        try:
            await in_thread(self._thread, lambda: write_whole(target, content, temporary))
        except OSError as error:
            raise full(error) from error

    def _recover(self) -> None:
        """Make the tree keep its promises again: what is not whole leaves the complete models.

        A full disk stops only the moves: a model that could not be staged is fetched again when asked for.
        """
        rmtree(self.layout.temporary, ignore_errors=True)
        self.layout.temporary.mkdir(exist_ok=True)
        tidy(self.layout)
        for shelf in (self.complete, self.staged):
            self.problems += [f"{path} {problem}" for path, problem in shelf.load()]
        for stored in self.complete:
            if self.missing(stored):
                self._demote(stored)
        for stored in self.staged:
            manifest = self.staged.read(stored)
            if manifest is not None and not self.missing(stored):
                with suppress(OSError):
                    self.complete.write(stored.name, manifest)
                    self.complete.note(stored.name, manifest)
                    self.staged.remove(stored.name)

    def _demote(self, stored: StoredManifest) -> None:
        """A complete model lacks a blob: stage it again, and put aside what has a blob's name and is none.

        A blob that another manifest names with the size it has is one: then this manifest is wrong.
        """
        manifest = self.complete.read(stored)
        lacking = self.missing(stored)
        if manifest is not None and self.staged.find(stored.name) is None:
            with suppress(OSError):
                self.staged.write(stored.name, manifest)
                self.staged.note(stored.name, manifest)
        self.complete.remove(stored.name)
        sizes = {(blob.digest, blob.size) for shelf in (self.complete, self.staged) for blob in shelf.blobs()}
        for digest in lacking:
            if (digest, self.blobs.size(digest)) not in sizes:
                with suppress(FileNotFoundError):
                    self.layout.blob(digest).rename(self.layout.quarantine / digest.filename)
        self.problems.append(
            f"{stored.name.short} lacks {len(lacking)} of its blobs; it is fetched again when asked for"
        )
