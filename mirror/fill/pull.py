"""A whole model into the store, with progress."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from mirror.access import ANONYMOUS
from mirror.errors import BrokenStore, DigestMismatch, NotFoundUpstream, UpstreamMisbehaved
from mirror.fill.admission import Admission
from mirror.fill.fills import Fills
from mirror.fill.groups import first_of
from mirror.fill.tags import Tags
from mirror.keep import Keeper
from mirror.store import Store
from mirror.values import Descriptor, Digest, Manifest, ModelName

_AT_ONCE = 3
_EVERY_S = 0.2
_MOST_MANIFESTS = 1000


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is: bytes here of the model's blobs, of ``total``; ``fetched`` of them came just now."""

    name: ModelName
    done: int
    total: int
    fetched: int


class Puller:
    """Brings models in by their names, a few blobs at once. For the event loop's thread."""

    def __init__(self, store: Store, keeper: Keeper, tags: Tags, fills: Fills, admission: Admission) -> None:
        self._store = store
        self._keeper = keeper
        self._tags = tags
        self._fills = fills
        self._admission = admission

    async def pull(
        self, name: ModelName, report: Callable[[PullProgress], None], user: str = ANONYMOUS, *, parks: bool = False
    ) -> PullProgress:
        """Fetch what is missing of a model for a user; when it returns, the model is complete in the store.

        Cancelled, it leaves its fills to go on as the settings say; with ``parks`` those stop that nobody else wants.

        ``report`` is called with progress several times a second. The bytes of a failed pull are kept.

        Raises:
            UpstreamError, DigestMismatch, StoreFull: the first thing that could not be done. Where there is no room for
                all of it, and none can be made, nothing is begun.
            NotAllowed: the policy refuses it to that user.
            BrokenStore: every blob came, and yet the model is not complete.
        """
        name = self._tags.filed(name)
        self._admission.before(name, user)
        manifest = await self._tags.refresh(name)
        await self._admission.after(name, manifest, user)
        blobs = await self._every_blob(name, manifest, lambda child: self._admission.after(name, child, user))
        return await self._bring_in(name, blobs, report, parks=parks)

    async def mend(self, name: ModelName, report: Callable[[PullProgress], None]) -> PullProgress:
        """Fetch what a stored model lacks, without asking whether its tag means another by now. Else as ``pull``."""
        stored = self._store.find(name)
        manifest = self._store.read(stored) if stored else None
        if manifest is None:
            raise NotFoundUpstream(f"{name.short} is not in the store")
        return await self._bring_in(name, await self._every_blob(name, manifest, _as_it_is), report)

    async def bring(self, name: ModelName, manifest: Manifest, report: Callable[[PullProgress], None]) -> PullProgress:
        """Fetch what is missing of a manifest that its tag does not mean, and leave the tag alone. Else as ``pull``.

        Nothing names these blobs then: who wants them to stay says so (``BlobStore.wanting``).
        """
        return await self._fetch_lacking(name, await self._every_blob(name, manifest, _as_it_is), report)

    async def _bring_in(
        self,
        name: ModelName,
        blobs: tuple[Descriptor, ...],
        report: Callable[[PullProgress], None],
        *,
        parks: bool = False,
    ) -> PullProgress:
        final = await self._fetch_lacking(name, blobs, report, parks=parks)
        stored = self._store.find(name)
        if stored is None or self._store.missing(stored):
            raise BrokenStore(f"{name.short} is not complete though all of it was fetched; try again")
        return final

    async def _fetch_lacking(
        self,
        name: ModelName,
        blobs: tuple[Descriptor, ...],
        report: Callable[[PullProgress], None],
        *,
        parks: bool = False,
    ) -> PullProgress:
        lacking = {blob.digest: blob.size for blob in blobs if self._store.blobs.size(blob.digest) is None}
        with await self._keeper.promise(lacking):
            return await self._fetch_reporting(_Meter(name, blobs, self._fills, parks=parks), blobs, report)

    async def _fetch_reporting(
        self, meter: "_Meter", blobs: tuple[Descriptor, ...], report: Callable[[PullProgress], None]
    ) -> PullProgress:
        reporting = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_report(meter, report, reporting))
                await self._fetch_all(meter.name, blobs, meter)
                reporting.set()
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None
        final = meter.now()
        report(final)
        return final

    async def _every_blob(
        self, name: ModelName, manifest: Manifest, judge: Callable[[Manifest], Awaitable[None]]
    ) -> tuple[Descriptor, ...]:
        """The blobs to fetch; the manifests an index names are fetched here, judged, and what they name is added.

        Raises UpstreamMisbehaved for an index of indexes without end.
        """
        blobs: dict[Digest, Descriptor] = {}
        seen: set[Digest] = set()
        open_ends = [manifest]
        while open_ends:
            one = open_ends.pop()
            blobs |= {blob.digest: blob for blob in (*one.layers, *((one.config,) if one.config else ()))}
            for child in one.children:
                if child.digest not in seen:
                    seen.add(child.digest)
                    open_ends.append(await self._child(name, child))
                    await judge(open_ends[-1])
            if len(seen) > _MOST_MANIFESTS:
                raise UpstreamMisbehaved(f"{name.short} names more than {_MOST_MANIFESTS} manifests")
        return tuple(blobs.values())

    async def _child(self, name: ModelName, child: Descriptor) -> Manifest:
        answer = await self._tags.by_digest(name, child.digest)
        await self._store.put_small_blob(answer.manifest.raw)
        return answer.manifest

    async def _fetch_all(self, name: ModelName, blobs: tuple[Descriptor, ...], meter: "_Meter") -> None:
        places = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for blob in blobs:
                if self._store.blobs.size(blob.digest) is None:
                    group.create_task(self._fetch(name, blob, places, meter))
                else:
                    meter.whole(blob)

    async def _fetch(self, name: ModelName, blob: Descriptor, places: asyncio.Semaphore, meter: "_Meter") -> None:
        async with places:
            while (fill := await self._fills.open(name, blob.digest, blob.size)) is not None:
                fill.wanted += 1
                try:
                    await fill.ended.wait()
                finally:
                    fill.wanted -= 1
                    meter.fetched += fill.fetched
                    self._fills.left(fill, parks=meter.parks)
                # After wrong bytes another fill has begun by itself, or ``open`` says that it was the last.
                if fill.error is not None and not isinstance(fill.error, DigestMismatch):
                    raise fill.error
            meter.whole(blob)


async def _as_it_is(_: Manifest) -> None:
    """What is in the store already is not judged anew."""


class _Meter:
    """One pull: counts what is here of its blobs, and knows whether its fills stop with it (``parks``)."""

    def __init__(self, name: ModelName, blobs: tuple[Descriptor, ...], fills: Fills, *, parks: bool) -> None:
        self.name = name
        self.parks = parks
        self._fills = fills
        self._total = sum(blob.size for blob in blobs)
        self._rest = {blob.digest for blob in blobs}
        self._whole = 0
        self.fetched = 0

    def whole(self, blob: Descriptor) -> None:
        """A blob is in the store."""
        self._rest.discard(blob.digest)
        self._whole += blob.size

    def now(self) -> PullProgress:
        """Return the progress at this moment."""
        mine = [fill for fill in self._fills.in_flight if fill.digest in self._rest]
        done = self._whole + sum(fill.here for fill in mine)
        return PullProgress(self.name, done, self._total, self.fetched + sum(fill.fetched for fill in mine))


async def _report(meter: _Meter, report: Callable[[PullProgress], None], until: asyncio.Event) -> None:
    while not until.is_set():
        report(meter.now())
        with suppress(TimeoutError):
            async with asyncio.timeout(_EVERY_S):
                await until.wait()
