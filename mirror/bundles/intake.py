"""What an import has brought so far: staged apart, and taken into the store all at once or not at all."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Protocol, TypeVar
from uuid import uuid4

from mirror import faultpoints
from mirror.bundles.needs import demanded
from mirror.bundles.staging import hold, proven
from mirror.errors import BadBundle, BrokenStore
from mirror.store import Store
from mirror.store.manifests import read_manifest
from mirror.threads import in_thread
from mirror.values import Descriptor, Digest, InvalidManifest, Manifest, ModelName

MAX_MANIFESTS_BYTES = 64 << 20
"""Of all manifests in one import, which are held in memory."""
_LONGEST_FOLDER = 255
"""Bytes in a name on every file system a store can be on; a host may have more."""

T = TypeVar("T")


class Promise(Protocol):
    """Room in the store that is set aside for blobs."""

    def landed(self, digest: Digest) -> None:
        """All bytes of a blob are on the disk."""

    def close(self) -> None:
        """Give back what is left of it."""


Reserve = Callable[[Mapping[Digest, int]], Awaitable[Promise]]
"""Sets room aside for blobs of these sizes in bytes, or raises StoreFull."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import changed. ``replaced`` are those of ``models`` whose name meant another manifest before.

    ``new`` blobs of ``new_bytes`` in all were taken in; ``here`` blobs that the models need were in the store.
    """

    models: tuple[ModelName, ...]
    replaced: tuple[ModelName, ...]
    new: int
    new_bytes: int
    here: int


class Intake:
    """One import on its way. For the event loop's thread; ``in_thread`` runs what blocks, one thing after another."""

    def __init__(self, store: Store, reserve: Reserve, folder: Path, threads: ThreadPoolExecutor) -> None:
        self._store = store
        self._reserve = reserve
        self._folder = folder
        self._threads = threads
        self._models: dict[ModelName, tuple[ModelName, Manifest]] = {}
        self._manifests_bytes = 0
        self._staged: dict[Digest, int] = {}
        self._held: set[Digest] = set()
        self._covered: dict[Digest, int] = {}
        self._promises: list[Promise] = []
        self._promised: dict[Digest, list[Promise]] = {}

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what blocks."""
        return await in_thread(self._threads, work)

    def path(self, digest: Digest) -> Path:
        """Where a blob is staged."""
        return self._folder / digest.filename

    @property
    def models(self) -> list[tuple[ModelName, Manifest]]:
        """The models that have come."""
        return list(self._models.values())

    def add_model(self, name: ModelName, raw: bytes) -> None:
        """Remember a manifest.

        Raises:
            BadBundle: it is none, its name came before in whatever letter case or is too long for a disk, or the
                manifests have too many bytes in all.
        """
        known = self._models.get(name.folded)
        if known is not None:
            how = "twice" if known[0] == name else "in two spellings of its letter case"
            raise BadBundle(f"{name.short} is there {how}")
        if len(name.host) > _LONGEST_FOLDER:
            raise BadBundle(f"{name.short} cannot be stored: no folder can be called like its host")
        self._manifests_bytes += len(raw)
        if self._manifests_bytes > MAX_MANIFESTS_BYTES:
            raise BadBundle(f"the manifests have more than {MAX_MANIFESTS_BYTES} bytes in all")
        try:
            self._models[name.folded] = name, Manifest.parse(raw)
        except InvalidManifest as error:
            raise BadBundle(f"the manifest of {name.short} cannot be read: {error}") from error

    async def has(self, digest: Digest, size: int) -> bool:
        """Whether the store has a blob; it stays at hand then, even if the store drops it to make room for others."""
        if self._store.blobs.size(digest) != size:
            return False
        if digest not in self._held:
            held = await self.in_thread(lambda: hold(self._store.layout.blob(digest), self._held_path(digest)))
            faultpoints.passing("import.held")
            self._held |= {digest} if held else set()
        return True

    async def cover(self, blobs: Mapping[Digest, int]) -> None:
        """Set room aside for those of ``blobs`` that have none yet and are not in the store. Raises StoreFull."""
        lacking = {
            digest: size
            for digest, size in blobs.items()
            if self._covered.get(digest) != size and self._store.blobs.size(digest) != size
        }
        if lacking:
            promise = await self._reserve(lacking)
            self._promises.append(promise)
            self._covered |= lacking
            for digest in lacking:
                self._promised.setdefault(digest, []).append(promise)

    def landed(self, digest: Digest, size: int) -> None:
        """A blob is staged: proven and durable."""
        faultpoints.passing("import.landed")
        self._staged[digest] = size
        for promise in self._promised.get(digest, ()):
            promise.landed(digest)

    async def take_in(self) -> Imported:
        """Put everything into the store, after a last look at whether it is whole.

        Raises:
            BadBundle: there are no models, or blobs they need are not here or of another size.
            BrokenStore: a blob that was in the store was damaged or went meanwhile.
            StoreFull: the store cannot be written.
        """
        faultpoints.passing("import.staged")
        if not self._models:
            raise BadBundle("there are no models in it")
        await self._bring_back()
        needs = await self.in_thread(lambda: demanded(self.models, self._found, self._child))
        faultpoints.passing("import.checked")
        replaced = tuple(name for name, manifest in self.models if self._replaces(name, manifest))
        new = {digest: size for digest, size in self._staged.items() if digest in needs}
        await self._store.adopt({digest: self.path(digest) for digest in new}, self.models)
        self._confirm()
        new = {digest: size for digest, size in new.items() if digest not in self._held}
        return Imported(
            models=tuple(name for name, _ in self.models),
            replaced=replaced,
            new=len(new),
            new_bytes=sum(new.values()),
            here=len(needs) - len(new),
        )

    def close(self) -> None:
        """Give back the room that was set aside."""
        for promise in self._promises:
            promise.close()

    def _held_path(self, digest: Digest) -> Path:
        return self._folder / f"held-{digest.hex}"

    async def _bring_back(self) -> None:
        """Blobs that were in the store and went while we read on: what we hold of them is proven again and used."""
        for digest in sorted(self._held):
            if self._store.blobs.size(digest) is None and digest not in self._staged:
                try:
                    self._staged[digest] = await self.in_thread(partial(self._prove_held, digest))
                except BadBundle as error:
                    raise BrokenStore(f"{digest} was damaged in the store; import once more") from error

    def _prove_held(self, digest: Digest) -> int:
        size = max(proven(self._held_path(digest), digest, str(digest)), default=0)
        self._held_path(digest).rename(self.path(digest))
        faultpoints.passing("import.brought_back")
        return size

    def _found(self, blob: Descriptor) -> int | None:
        staged = self._staged.get(blob.digest)
        return self._store.blobs.size(blob.digest) if staged is None else staged

    def _child(self, digest: Digest) -> Manifest | None:
        path = self.path(digest) if digest in self._staged else self._store.layout.blob(digest)
        with suppress(OSError, InvalidManifest):
            return read_manifest(path)
        return None

    def _replaces(self, name: ModelName, manifest: Manifest) -> bool:
        known = self._store.complete.find(name)
        return known is not None and known.digest != manifest.digest

    def _confirm(self) -> None:
        waiting = []
        for name, manifest in self.models:
            staged = self._store.staged.find(name)
            if staged is not None and staged.digest == manifest.digest:
                waiting.append(name.short)
        if waiting:
            raise BrokenStore(f"blobs of {', '.join(waiting)} went from the store at the last moment; import once more")


@asynccontextmanager
async def opened_intake(store: Store, reserve: Reserve) -> AsyncIterator[Intake]:
    """Begin an import in a folder of its own. When the context is left, what was not taken in is gone.

    A kill leaves nothing either: the store empties its temporary folder at every start.
    """
    folder = store.layout.temporary / uuid4().hex
    threads = ThreadPoolExecutor(1, thread_name_prefix="import")
    intake = Intake(store, reserve, folder, threads)
    try:
        await intake.in_thread(folder.mkdir)
        faultpoints.passing("import.begun")
        yield intake
    finally:
        try:
            await intake.in_thread(lambda: rmtree(folder, ignore_errors=True))
            faultpoints.passing("import.cleared")
        finally:
            rmtree(folder, ignore_errors=True)  # nearly always gone: only a second cancellation comes between
            intake.close()
            threads.shutdown(wait=False)
