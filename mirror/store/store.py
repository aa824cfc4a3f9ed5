"""The store: whole, proven blobs and complete models, and the order in which they come and go."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from mirror.errors import OnlyRead, StoreUnusable
from mirror.events import BlobDamaged, Events, ModelRemoved, ModelReplaced, Reason
from mirror.faultpoints import passing
from mirror.store.arrivals import Arrivals
from mirror.store.layout import Layout
from mirror.store.lock import StoreLock
from mirror.store.manifests import StoredManifest
from mirror.store.ollama import is_ripe
from mirror.store.partial import full
from mirror.store.recovery import recover
from mirror.threads import in_thread
from mirror.values import Digest, ModelName


class Store(Arrivals):
    """Blobs first, manifest last; on removal manifest first. So a name always means that all of it is here.

    ``complete`` holds the models that are whole, ``staged`` the manifests that wait for blobs. Everything is for
    the event loop's thread; what blocks on the disk goes to a thread inside. Changes to the tree are in a row, and
    a caller who is cancelled leaves the index saying what the disk says.
    """

    def __init__(self, layout: Layout, events: Events, lock: StoreLock, also_from: Sequence[Path] = ()) -> None:
        super().__init__(layout, events, also_from)
        self.lock = lock
        self.problems: list[str] = []
        self.replaced: list[ModelReplaced] = []
        """What the start completed under names that others had, before anybody could be told."""

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
        self.trash.close()
        self.lock.release()

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

    def _refuse_of_others(self, name: ModelName) -> None:
        theirs = self.extra.find(name)
        if theirs is not None:
            raise OnlyRead(f"{name.short} lies in {self.extra.folder_of(theirs)}, which this mirror only reads")

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
                    self.trash.take(path)
        return sum(partials[digest] for digest in unwanted)

    def _recover(self) -> None:
        sizes = dict(self.blobs)
        self.problems += recover(self.layout, self.complete, self.staged, sizes, self.replaced)
        self.room.proven = sum(sizes.values())
