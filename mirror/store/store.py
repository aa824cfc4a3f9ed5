"""The store: whole, proven blobs and complete models, and the order in which they come and go."""

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Self

from mirror.errors import StoreFull, StoreUnusable
from mirror.events import Events, ModelRemoved, ModelStored
from mirror.store.blobs import BlobStore
from mirror.store.layout import Layout
from mirror.store.lock import StoreLock
from mirror.store.manifests import ManifestShelf, StoredManifest, named
from mirror.store.partial import Partial, full, leftovers, require_room
from mirror.values import MAX_MANIFEST_BYTES, Digest, InvalidManifest, Manifest, ModelName


class Store:
    """Blobs first, manifest last; on removal manifest first. So a name always means that all of it is here.

    ``complete`` holds the models that are whole, ``staged`` the manifests that wait for blobs. Everything is for
    the event loop's thread; what blocks on the disk goes to threads inside. Changes to the tree are in a row.
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
        try:
            store = cls(layout, events, lock)
            await asyncio.to_thread(store._recover)
        except BaseException:
            lock.release()
            raise
        return store

    def close(self) -> None:
        """Give the store to the next process."""
        self.lock.release()

    def find(self, name: ModelName) -> StoredManifest | None:
        """Return what is known of a model: the newer manifest, whether or not its blobs are all here."""
        return self.staged.find(name) or self.complete.find(name)

    def read(self, stored: StoredManifest) -> Manifest | None:
        """Return the manifest of what ``find`` found; None when it has gone meanwhile."""
        shelf = self.staged if stored.path.is_relative_to(self.layout.staged) else self.complete
        return shelf.read(stored)

    def by_digest(self, digest: Digest) -> Manifest | None:
        """Return a manifest by the digest of its bytes, also one that an index names."""
        for shelf in (self.complete, self.staged):
            stored = shelf.find_digest(digest)
            if stored is not None:
                return shelf.read(stored)
        raw = self.blobs.read(digest, MAX_MANIFEST_BYTES)
        with suppress(InvalidManifest):
            return Manifest.parse(raw) if raw and raw.lstrip()[:1] == b"{" else None
        return None

    def size_of(self, digest: Digest) -> int | None:
        """Return the size in bytes that the store, or any manifest it has, says a blob has."""
        size = self.blobs.size(digest)
        if size is not None:
            return size
        for shelf in (self.staged, self.complete):
            for stored in shelf.naming(digest):
                return next(blob.size for blob in stored.blobs if blob.digest == digest)
        return None

    async def put_manifest(self, name: ModelName, manifest: Manifest) -> None:
        """Keep a manifest: among the complete models when every blob is here, else staged until they are.

        Raises:
            StoreFull: the disk would not take it; nothing changed.
        """
        async with self._changes:
            known = self.find(name)
            if known is not None and known.digest == manifest.digest:
                return
            kept = self.complete.find(name)
            if kept is not None and kept.digest == manifest.digest:
                self.staged.remove(name)  # the tag moved back
                return
            await self._write(self.staged, name, manifest)
            await self._promote(name)

    async def put_small_blob(self, content: bytes) -> Digest:
        """Keep ``content`` as a blob, as is done with the manifests an index names. Raises StoreFull."""
        digest = Digest.of(content)
        async with self._changes:
            if self.blobs.size(digest) is None:
                await asyncio.to_thread(self._put_small, digest, content)
        await self.arrived(digest)
        return digest

    async def arrived(self, digest: Digest) -> None:
        """A blob was published: models that waited only for it are complete now."""
        self.blobs.spare(digest)
        async with self._changes:
            for stored in self.staged.naming(digest):
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
            os.stat(self.layout.blobs)
        except OSError as error:
            return f"{self.layout.root} cannot be written: {error.strerror}"
        return None

    def require_room(self, size: int) -> None:
        """Raise StoreFull unless the file system has room for ``size`` more bytes."""
        require_room(self.layout, size)

    def missing(self, stored: StoredManifest) -> list[Digest]:
        """Return the blobs a manifest names that are not here with the size it says."""
        return [blob.digest for blob in stored.blobs if self.blobs.size(blob.digest) != blob.size]

    async def _write(self, shelf: ManifestShelf, name: ModelName, manifest: Manifest) -> StoredManifest:
        try:
            await asyncio.to_thread(shelf.write, name, manifest)
            return shelf.note(name, manifest)
        except OSError as error:
            raise full(error) from error

    async def _promote(self, name: ModelName) -> None:
        """Move a staged manifest among the complete ones, if its blobs are all here now."""
        stored = self.staged.find(name)
        manifest = self.staged.read(stored) if stored else None
        if stored is None or manifest is None:
            return
        if await asyncio.to_thread(self.missing, stored):
            return
        await self._write(self.complete, name, manifest)
        self.staged.remove(name)
        self._events.publish(ModelStored(name, manifest.digest, manifest.size))

    def _put_small(self, digest: Digest, content: bytes) -> None:
        partial = Partial.open(self.layout, digest, len(content))
        try:
            partial.write(0, content)
            partial.advance(len(content))
            partial.publish()
        finally:
            partial.close()

    def _recover(self) -> None:
        """Make the tree keep its promises again: what is not whole leaves the complete models."""
        rmtree(self.layout.temporary, ignore_errors=True)
        self.layout.temporary.mkdir(exist_ok=True)
        self._tidy_partials()
        for shelf in (self.complete, self.staged):
            self.problems += [f"{path} is not a manifest: {problem}" for path, problem in shelf.load()]
        for stored in self.complete:
            if self.missing(stored):
                self._demote(stored)
        for stored in self.staged:
            manifest = self.staged.read(stored)
            if manifest is not None and not self.missing(stored):
                self.complete.write(stored.name, manifest)
                self.complete.note(stored.name, manifest)
                self.staged.remove(stored.name)

    def _demote(self, stored: StoredManifest) -> None:
        """A complete model lacks a blob: stage it again, and put aside what has a blob's name and is none."""
        manifest = self.complete.read(stored)
        lacking = self.missing(stored)
        if manifest is not None and self.staged.find(stored.name) is None:
            self.staged.write(stored.name, manifest)
            self.staged.note(stored.name, manifest)
        self.complete.remove(stored.name)
        for digest in lacking:
            with suppress(FileNotFoundError):
                self.layout.blob(digest).rename(self.layout.quarantine / digest.filename)
        self.problems.append(
            f"{stored.name.short} lacks {len(lacking)} of its blobs; it is fetched again when asked for"
        )

    def _tidy_partials(self) -> None:
        """Remove partials nobody can go on with: a record without bytes, bytes without a record."""
        known = {path for path, _, there in leftovers(self.layout) if there}
        for path in self.layout.partials.iterdir():
            if path not in known and path.with_suffix("") not in known:
                path.unlink(missing_ok=True)
