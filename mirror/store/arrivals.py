"""What comes into the store: manifests, blobs, whole models, and what an Ollama that shares the tree does there."""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from mirror.errors import OnlyRead, StoreFull
from mirror.events import BlobRepaired, Events, ModelRemoved, ModelReplaced, ModelStored, Reason
from mirror.faultpoints import passing
from mirror.store.layout import Layout, sync_folder, write_whole
from mirror.store.manifests import ManifestShelf, StoredManifest, expanded
from mirror.store.partial import full
from mirror.store.rescan import Look
from mirror.store.tree import Tree
from mirror.threads import in_thread
from mirror.values import Digest, Manifest, ModelName


class Arrivals(Tree):
    """The half of the Store that takes in: blobs first, manifest last. For the event loop's thread.

    Changes to the tree are in a row (``_changes``), and a caller who is cancelled leaves the index saying what the disk
    says.
    """

    def __init__(self, layout: Layout, events: Events, also_from: Sequence[Path] = ()) -> None:
        super().__init__(layout, also_from)
        self.may_replace: Callable[[StoredManifest], bool] = lambda _: True
        """Says whether a complete model may give its name to a newer one: one that an Ollama brought in may not."""
        self._events = events
        self._changes = asyncio.Lock()
        self._lacking: dict[Digest, set[Digest]] = {}
        """Of staged manifests that were looked at: what they lacked then and has not arrived since."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def put_manifest(
        self, name: ModelName, manifest: Manifest, unless: Callable[[], bool] = lambda: False
    ) -> None:
        """Keep a manifest: among the complete models when every blob is here, else staged until they are.

        ``unless`` is asked when nothing else changes the tree any more: where it says yes, nothing is done.

        Raises:
            StoreFull: the disk would not take it; the complete models are as they were.
        """
        async with self._changes:
            with suppress(OSError):
                await self._look_again()  # what an Ollama has just completed is its own
            if unless():
                return
            kept = self.complete.find(name)
            if kept is not None and kept.digest == manifest.digest:
                self._unstage(name)  # where there is one, the tag moved back
                return
            known = self.staged.find(name)
            if known is None or known.digest != manifest.digest:
                await self._write(self.staged, name, manifest)
            await self._promote(name)

    async def put_back(self, name: ModelName, manifest: Manifest) -> bool:
        """Let a tag mean a manifest of which every blob is here; False where one is not, and nothing has changed.

        What waited under the name is forgotten: people have chosen. Killed meanwhile, the next start ends it.

        Raises:
            OnlyRead: an Ollama that shares the tree brought in what has the name.
            StoreFull: the disk would not take it; the complete model is as it was.
        """
        async with self._changes:
            with suppress(OSError):
                await self._look_again()
            self.refuse_theirs(name)
            blobs = expanded(manifest, self._child)
            for blob in blobs:
                self.blobs.spare(blob.digest)
            if any(self.blobs.size(blob.digest) != blob.size for blob in blobs):
                return False
            kept = self.complete.find(name)
            if kept is not None and kept.digest == manifest.digest:
                self._unstage(name)
                return True
            try:
                await self._write(self.staged, name, manifest)
                await self._promote(name)
            except BaseException:  # also where the caller was cancelled: the tag means the one or the other
                staged = self.staged.find(name)
                if staged is not None and staged.digest == manifest.digest:
                    with suppress(StoreFull):
                        self._unstage(name)
                raise
            return True

    def refuse_theirs(self, name: ModelName) -> None:
        """Raise OnlyRead where an Ollama that shares the tree brought in what has this name, so that it stays."""
        kept = self.complete.find(name)
        if kept is not None and not self.may_replace(kept):
            raise OnlyRead(f"{name.short} was brought in by the Ollama that shares the folder, and stays as it is")

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

    def to_come(self, name: ModelName, digest: Digest) -> dict[Digest, int]:
        """Return what is still to come, with sizes in bytes, of ``name``'s models that wait for this blob too."""
        repository = name.with_tag("latest").folded
        coming: dict[Digest, int] = {}
        for stored in self.staged.naming(digest):
            if stored.name.with_tag("latest").folded == repository:
                lacking = self._lacking.get(stored.digest)
                coming |= {blob.digest: blob.size for blob in stored.blobs if lacking is None or blob.digest in lacking}
        return coming

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
        """Move a staged manifest among the complete ones, if its blobs are all here now and the name may be taken."""
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
        former = self.complete.find(name)
        if former is not None and not self.may_replace(former):
            return
        replaced = self.complete.read(former) if former is not None else None
        try:
            await self._write(self.complete, name, manifest)
        finally:
            now = self.complete.find(name)  # cancelled, the caller may all the same have had it written
            if replaced is not None and now is not None and replaced.digest != now.digest == manifest.digest:
                self._events.publish(ModelReplaced(name, replaced, manifest))
        self._unstage(name)
        self._events.publish(ModelStored(name, manifest.digest, manifest.size))

    async def _put_small(self, digest: Digest, content: bytes) -> None:
        """Write bytes that named themselves. Not by a Partial: a fill may be at work on the one of this digest."""
        target, temporary = self.layout.blob(digest), self.layout.temporary / uuid4().hex
        try:
            await in_thread(self._thread, lambda: write_whole(target, content, temporary, self.layout.share))
        except OSError as error:
            raise full(error) from error

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
        if not self.layout.manifests.is_dir():
            if any(not self.missing(one) for one in self.complete):  # not mounted, or moved: Ollama removes blobs too
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.layout.manifests))
            self.layout.make()  # Ollama removes it at its start when it is empty
        look = self._rescan.look()
        return look, sum(size for _, size in self.blobs) if look.came or look.gone else None
