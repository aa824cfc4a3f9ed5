"""The store: whole, proven blobs and complete models, and the order in which they come and go."""

import asyncio
import errno
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

from mirror.errors import OnlyRead, StoreFull, StoreUnusable
from mirror.events import BlobDamaged, BlobRepaired, Events, ModelRemoved, ModelStored, Reason
from mirror.faultpoints import passing
from mirror.store.blobs import BlobStore, OpenBlob
from mirror.store.extra import Extra
from mirror.store.layout import Layout, sync_folder, write_whole
from mirror.store.lock import StoreLock
from mirror.store.manifests import ManifestShelf, StoredManifest, expanded
from mirror.store.ollama import is_ripe
from mirror.store.partial import full
from mirror.store.recovery import put_aside, recover
from mirror.store.rescan import Look, Rescan
from mirror.store.room import Room
from mirror.threads import in_thread
from mirror.values import MAX_MANIFEST_BYTES, Descriptor, Digest, InvalidManifest, Manifest, ModelName


class Store:
    """Blobs first, manifest last; on removal manifest first. So a name always means that all of it is here.

    ``complete`` holds the models that are whole, ``staged`` the manifests that wait for blobs. Everything is for
    the event loop's thread; what blocks on the disk goes to a thread inside. Changes to the tree are in a row, and
    a caller who is cancelled leaves the index saying what the disk says.
    """

    def __init__(self, layout: Layout, events: Events, lock: StoreLock, also_from: Sequence[Path] = ()) -> None:
        self.layout = layout
        self.lock = lock
        self.blobs = BlobStore(layout, self._unlink)
        self.room = Room(layout)
        self.complete = ManifestShelf(layout, layout.manifests)
        self.staged = ManifestShelf(layout, layout.staged)
        self.extra = Extra(layout, also_from, self.blobs.size)
        self._rescan = Rescan(layout.manifests, self.complete)
        self.problems: list[str] = []
        self._events = events
        self._changes = asyncio.Lock()
        self._lacking: dict[Digest, set[Digest]] = {}
        """Of staged manifests that were looked at: what they lacked then and has not arrived since."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    @classmethod
    async def open(
        cls,
        root: Path,
        state: Path,
        events: Events,
        *,
        holder: str,
        create: bool = True,
        shared: bool = False,
        also_from: Sequence[Path] = (),
    ) -> Self:
        """Take the store for this process and mend what a crash left.

        ``shared``: an Ollama writes in the tree too. ``also_from``: folders of others, to be served from and only read.

        Raises:
            StoreBusy: another process has it.
            StoreUnusable: it is not there (and ``create`` is false), or cannot be written.
        """
        layout = Layout(root, state, shared)
        if not create and not layout.blobs.is_dir():
            raise StoreUnusable(f"there is no store at {root}")
        await asyncio.to_thread(layout.make)
        lock = StoreLock(state / "lock", holder).take()
        store = cls(layout, events, lock, also_from)
        try:
            await in_thread(store._thread, store._recover)
            await store.extra.look()
        except OSError as error:
            store.close()
            raise StoreUnusable(f"cannot tidy up {error.filename}: {error.strerror}") from error
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Give the store to the next process."""
        self.extra.close()
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
            return Manifest.parse(raw) if raw and raw.lstrip()[:1] == b"{" else self.extra.by_digest(digest)
        return None

    def size_of(self, digest: Digest, name: ModelName) -> int | None:
        """Return the size in bytes that a blob has, or shall have by the manifests there are.

        The word of ``name``'s own repository counts first: another's manifest may have it wrong.
        """
        size = self.servable(digest)
        if size is not None:
            return size
        said = [one for shelf in (self.staged, self.complete) for one in shelf.naming(digest)]
        said.sort(key=lambda one: one.name.repository.lower() != name.repository.lower())
        return next((blob.size for one in said[:1] for blob in one.blobs if blob.digest == digest), None)

    def servable(self, digest: Digest) -> int | None:
        """Return the size in bytes of a blob that is here, or proven in a folder that is only read; else None."""
        size = self.blobs.size(digest)
        return size if size is not None else self.extra.size(digest)

    def whole_models(self) -> list[StoredManifest]:
        """Return every model that can be served: ours, and of the folders that are only read what we have not."""
        theirs = [one for one in self.extra.models() if self.complete.find(one.name) is None]
        return [*self.complete, *(one for one in theirs if not self.extra.missing(one))]

    def open_blob(self, digest: Digest) -> OpenBlob | None:
        """Open a blob for reading; None when it is neither here nor proven in a folder that is only read.

        One that has another size than every manifest says was changed behind our back: it is put aside, and so
        is not here.
        """
        blob = self.blobs.open(digest)
        if blob is None:
            return self.extra.open(digest)
        naming = [one for shelf in (self.complete, self.staged) for one in shelf.naming(digest)]
        said = {one.size for stored in naming for one in stored.blobs if one.digest == digest}
        if not said or blob.size in said:
            return blob
        blob.close()
        with suppress(OSError):
            self._put_aside(digest)
        return self.extra.open(digest)

    async def put_manifest(self, name: ModelName, manifest: Manifest) -> None:
        """Keep a manifest: among the complete models when every blob is here, else staged until they are.

        Raises:
            StoreFull: the disk would not take it; the complete models are as they were.
        """
        async with self._changes:
            with suppress(OSError):
                await self._look_again()  # what an Ollama has just completed is its own
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
            new = self.blobs.size(digest) is None
            if new:
                await self._put_small(digest, content)
        if new:
            await self.arrived(digest)
        return digest

    async def arrived(self, digest: Digest) -> None:
        """A blob was published: models that waited only for it are complete now."""
        self._note_arrived(digest)
        async with self._changes:
            await self._promote_waiting(digest)

    async def adopt(self, blobs: Mapping[Digest, Path], models: Sequence[tuple[ModelName, Manifest]]) -> None:
        """Take in whole models: ``blobs`` are proven, durable files on the store's file system, which are renamed.

        Raises:
            StoreFull: the tree cannot be written; blobs that got their names stay, as nothing is wrong with them.
        """

        def publish() -> None:
            for digest, path in blobs.items():
                self.layout.share(path)
                os.replace(path, self.layout.blob(digest))
                passing("adopt.named")
            sync_folder(self.layout.blobs)
            passing("adopt.durable")

        async with self._changes:
            try:
                await in_thread(self._thread, publish)
            except OSError as error:
                raise full(error) from error
            finally:
                for digest, path in blobs.items():
                    if not path.exists():
                        self._note_arrived(digest)
            for digest in blobs:
                await self._promote_waiting(digest)
        for name, manifest in models:
            await self.put_manifest(name, manifest)
            passing("adopt.model")

    async def remove(
        self, name: ModelName, reason: Reason = Reason.ASKED, why: str = "somebody asked for it"
    ) -> int | None:
        """Take a model out, and the blobs nothing else names; return the bytes freed, None if it is not here.

        Unfinished blobs that only it named go with it, but not while they are being filled. In a tree shared with an
        Ollama blobs younger than an hour stay as loose ones, as a pull of its may be about to name them.

        Raises:
            StoreFull: the tree cannot be written.
            OnlyRead: it is not ours to remove.
        """
        async with self._changes:
            try:
                await self._look_again()
                gone = [shelf.remove(name) for shelf in (self.complete, self.staged)]
                passing("remove.unnamed")
                found = [stored for stored in gone if stored is not None]
                if not found:
                    self._refuse_of_others(name)
                    return None
                for stored in found:
                    self._lacking.pop(stored.digest, None)
                freed = self._drop(self.unnamed(blob.digest for stored in found for blob in self.expanded(stored)))
            except OSError as error:
                raise full(error) from error
        self._events.publish(ModelRemoved(found[0].name, freed, reason, why))
        return freed

    async def drop_loose(self, digests: Iterable[Digest]) -> dict[Digest, int]:
        """Drop blobs and unfinished blobs that no manifest names and nobody fills; return the bytes freed of each.

        Raises:
            StoreFull: the tree cannot be written.
        """
        async with self._changes:
            try:
                await self._look_again()
                return {digest: freed for digest in sorted(self.unnamed(digests)) if (freed := self._drop({digest}))}
            except OSError as error:
                raise full(error) from error

    async def drop_leftover(self, digest: Digest) -> int:
        """Drop an unfinished blob, whoever names it, unless it is being filled; return the bytes freed."""
        async with self._changes:
            try:
                return self._drop_partials({digest})
            except OSError as error:
                raise full(error) from error

    async def unstage(self, name: ModelName) -> bool:
        """Forget a manifest that waits for its blobs; a complete model of that name stays. Raises StoreFull."""
        async with self._changes:
            stored = self.staged.find(name)
            if stored is not None:
                self._lacking.pop(stored.digest, None)
                self._unstage(name)
        return stored is not None

    async def drop_aside(self, name: str) -> bool:
        """Remove one file that was put aside as no blob; False when it has gone. Raises StoreFull."""
        try:
            await in_thread(self._thread, (self.layout.quarantine / name).unlink)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise full(error) from error
        return True

    async def condemn(self, digest: Digest) -> list[ModelName]:
        """A blob is not what its name says: put it aside, cut off who reads it, stage the models that name it.

        In a tree shared with an Ollama their manifests stay where they are: a model that lacks a blob is one it pulls
        again, a model without a manifest one it has lost.

        Raises:
            StoreFull: the tree cannot be written; nobody is served the blob all the same.
        """
        self.blobs.condemn(digest)
        async with self._changes:
            damaged = self.complete.naming(digest)
            try:
                self._put_aside(digest)
                passing("condemn.aside")
                self.blobs.put_aside(digest)
                for stored in damaged if not self.layout.shared else ():
                    await self._stage_again(stored)
            except OSError as error:
                raise full(error) from error
            finally:
                names = tuple(stored.name for stored in damaged)
                self._events.publish(BlobDamaged(digest, names))
        return list(names)

    async def refresh(self) -> None:
        """Take note of what an Ollama that shares the tree has done in it; else nothing. Reads only what has changed.

        What cannot be looked at is as it was before.
        """
        with suppress(OSError):
            async with self._changes:
                await self._look_again()

    async def notice(self, name: ModelName) -> None:
        """As ``refresh``, but only where the disk says something new of this very model, which costs one stat."""
        if self.layout.shared and self._rescan.differs(name):
            await self.refresh()

    @property
    def mentioned(self) -> frozenset[Digest]:
        """Digests in files of a shared tree that are no manifests to us, but may be to an Ollama."""
        return self._rescan.mentioned

    async def swept(self) -> None:
        """Wait until what was removed is off the disk."""
        await in_thread(self._thread, lambda: None)

    def unnamed(self, digests: Iterable[Digest]) -> set[Digest]:
        """Return those of ``digests`` that no manifest here names, nor one that an index names."""
        indexed = {blob.digest for stored in self._indexes() for blob in self.expanded(stored)}
        return {one for one in digests if one not in indexed and not self._named(one) and one not in self.mentioned}

    def expanded(self, stored: StoredManifest) -> list[Descriptor]:
        """Return every blob of a model: those its manifest names and, for an index, those its manifests name."""
        return expanded(stored, self._child)

    def to_come(self, name: ModelName, digest: Digest) -> dict[Digest, int]:
        """Return what is still to come, with sizes in bytes, of ``name``'s models that wait for this blob too."""
        repository = name.with_tag("latest").folded
        coming: dict[Digest, int] = {}
        for stored in self.staged.naming(digest):
            if stored.name.with_tag("latest").folded == repository:
                lacking = self._lacking.get(stored.digest)
                coming |= {blob.digest: blob.size for blob in stored.blobs if lacking is None or blob.digest in lacking}
        return coming

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

    def missing(self, stored: StoredManifest) -> list[Digest]:
        """Return the blobs a manifest names that are not here with the size it says."""
        return [blob.digest for blob in stored.blobs if self.blobs.size(blob.digest) != blob.size]

    def damaged(self, stored: StoredManifest) -> bool:
        """Say whether it lacks a blob because what was there turned out to be none. Looks at the disk."""
        return any((self.layout.quarantine / digest.filename).exists() for digest in self.missing(stored))

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

    def _refuse_of_others(self, name: ModelName) -> None:
        theirs = self.extra.find(name)
        if theirs is not None:
            raise OnlyRead(f"{name.short} lies in {self.extra.folder_of(theirs)}, which this mirror only reads")

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
            await in_thread(self._thread, lambda: write_whole(target, content, temporary, self.layout.share))
        except OSError as error:
            raise full(error) from error

    def _named(self, digest: Digest) -> bool:
        return self.complete.names(digest) or self.staged.names(digest)

    def _child(self, digest: Digest) -> Manifest | None:
        raw = self.blobs.read(digest, MAX_MANIFEST_BYTES)
        with suppress(InvalidManifest):
            return Manifest.parse(raw) if raw else None
        return None

    def _indexes(self) -> list[StoredManifest]:
        return [*self.complete.indexes(), *self.staged.indexes()]

    def _note_arrived(self, digest: Digest) -> None:
        self.blobs.arrived(digest)
        self.room.arrived(digest, self.blobs.size(digest) or 0)
        aside = self.layout.quarantine / digest.filename
        with suppress(OSError):  # nearly always: there is none
            aside.rename(aside.with_name(f"{aside.name}.{int(time.time())}"))
            passing("repair.renamed")
            self._events.publish(BlobRepaired(digest))

    async def _promote_waiting(self, digest: Digest) -> None:
        for stored in self.staged.naming(digest):
            lacking = self._lacking.get(stored.digest)
            if lacking is not None:
                lacking.discard(digest)
            if not lacking:
                with suppress(StoreFull):
                    await self._promote(stored.name)

    async def _stage_again(self, stored: StoredManifest) -> None:
        """A complete model lacks a blob now: what is known of it waits for that."""
        manifest = self.complete.read(stored)
        if manifest is not None and self.staged.find(stored.name) is None:
            await self._write(self.staged, stored.name, manifest)
        self.complete.remove(stored.name)

    def _drop(self, digests: set[Digest]) -> int:
        """Drop what is here of blobs that nothing names, proven or not; return the bytes. Raises OSError."""
        freed = sum(self.blobs.drop(digest) for digest in digests if self._may_go(digest))
        passing("drop.blobs")
        return freed + self._drop_partials(digests)

    def _may_go(self, digest: Digest) -> bool:
        """Whether a blob that nothing names can go now and not later, when an Ollama may have named it."""
        return not self.layout.shared or (is_ripe(self.layout.blob(digest)) and not self.blobs.being_read(digest))

    def _drop_partials(self, digests: set[Digest]) -> int:
        partials = self.room.partials()
        unwanted = {digest for digest in digests & partials.keys() if not self.room.promised(digest)}
        for digest in unwanted:
            for path in (self.layout.record(digest), self.layout.partial(digest)):
                with suppress(FileNotFoundError):
                    self._move_to_trash(path)
        return sum(partials[digest] for digest in unwanted)

    def _put_aside(self, digest: Digest) -> None:
        size = put_aside(self.layout, digest)
        self.room.proven -= size

    def _unlink(self, path: Path) -> None:
        """Take a blob away. Raises OSError."""
        size = path.stat().st_size
        self._move_to_trash(path)
        self.room.proven -= size

    def _move_to_trash(self, path: Path) -> None:
        """Take a file's name at once, and its bytes in a thread: of a large file that takes a while."""
        aside = self.layout.temporary / uuid4().hex
        os.replace(path, aside)
        passing("drop.renamed")
        with suppress(RuntimeError):  # the store is closed: the next start finds it among what is temporary
            self._thread.submit(_unlink, aside)

    async def _look_again(self) -> None:
        """Under the lock, in a shared tree: have the index say what the disk says. Raises OSError."""
        if self.layout.shared:
            proven = self.room.proven
            look, counted = await in_thread(self._thread, self._look)
            if look.problem is not None:
                raise look.problem
            if self.room.proven == proven:  # nothing came or went meanwhile: what was counted is so
                self.room.proven = proven if counted is None else counted
            for gone in self._rescan.take_in(look):
                self._events.publish(ModelRemoved(gone.name, 0, Reason.ELSEWHERE, "an Ollama removed it"))

    def _look(self) -> tuple[Look, int | None]:
        """Look at the manifests and, where there is something new of them, at the bytes of the blobs."""
        if not self.layout.blobs.is_dir():  # not mounted any more: nobody has removed anything
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.layout.blobs))
        if not self.layout.manifests.is_dir():  # Ollama removes it at its start when it is empty
            self.layout.make()
        look = self._rescan.look()
        return look, sum(size for _, size in self.blobs) if look.came or look.gone else None

    def _recover(self) -> None:
        sizes = dict(self.blobs)
        self.problems += recover(self.layout, self.complete, self.staged, sizes)
        self.room.proven = sum(sizes.values())


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
    passing("drop.unlinked")
