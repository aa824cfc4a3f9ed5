"""All fills: one per digest, however many want it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress

from mirror.config import Settings
from mirror.errors import DigestMismatch, NotFoundUpstream, Offline, StoreError, UpstreamMisbehaved, UpstreamUnavailable
from mirror.events import Events, NotKept
from mirror.fill.fill import Fill
from mirror.fill.once import Once
from mirror.fill.source import BlobOf, FillSettings
from mirror.keep import Keeper
from mirror.store import Partial, Promise, Store
from mirror.upstream import Address, Upstreams
from mirror.values import Digest, ModelName

_MISMATCHES = 3
_WRONG_S = 1.0
_MOST_ABSENT = 10_000
_TOLD_S = 60.0
_NEXT_BLOB_S = 10.0
"""For so long after a blob the room for the rest of its model is held: a client asks for one after the other."""


class Fills:
    """Starts fills in the task group it is given, joins readers to running ones, shares connections fairly.

    For the event loop's thread. The group and the threads for hashing belong to the caller, who waits in the group.
    """

    def __init__(
        self,
        store: Store,
        keeper: Keeper,
        upstreams: Upstreams,
        settings: Settings,
        events: Events,
        group: asyncio.TaskGroup,
        threads: Executor,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._upstreams = upstreams
        self._events = events
        self._group = group
        self._running: dict[Digest, Fill] = {}
        self._owners: dict[Digest, ModelName] = {}
        self._given_up: set[Fill] = set()
        self._offline = settings.offline
        self._locating: Once[Address] = Once()
        self._wrong: dict[tuple[str, Digest, int], tuple[float, DigestMismatch]] = {}
        self._absent: dict[tuple[str, str, Digest], float] = {}
        self._absent_s = settings.cache.negative_ttl
        self._wrong_s = max(_WRONG_S, settings.cache.negative_ttl)
        self._told: dict[Digest, float] = {}
        self._stopping = False
        self._threads = threads
        self._connections = settings.upstream.max_connections
        self._keep_filling = settings.cache.keep_filling
        self._tries = FillSettings(
            connections=settings.upstream.connections,
            retry_attempts=settings.upstream.retry_attempts,
            retry_delay_s=settings.upstream.retry_delay,
            stall_timeout_s=settings.upstream.stall_timeout,
        )

    def running(self, digest: Digest) -> Fill | None:
        """Return the fill of a blob that is on its way in."""
        return self._running.get(digest)

    @property
    def in_flight(self) -> tuple[Fill, ...]:
        """Every running fill."""
        return tuple(self._running.values())

    async def open(
        self, name: ModelName, digest: Digest, size: int | None, accept: Callable[[int], object] = lambda _: None
    ) -> Fill | None:
        """Join the fill of a blob or start one; None when it is in the store by now.

        ``size`` is what a manifest says; the upstream is asked where nobody knows. ``accept`` is called with it
        before anything is started, and may raise.

        A fill of another upstream is joined unless the asker's comes first in the settings: then it begins anew from
        that one, so that no other can hold up, or spoil, what is asked of it.

        Raises:
            StoreFull: it cannot be kept; the caller may pass the bytes through instead.
            DigestMismatch: a moment ago the upstream sent other bytes than these, several times over.
            Offline: it is not here, and the mirror asks nobody.
            UpstreamError: where the size had to be asked or is in doubt, or the mirror is stopping.
        """
        address: Address | None = None
        while True:
            fill = self._running.get(digest)
            if fill is not None and fill.ending:
                await fill.ended.wait()
                continue
            if fill is None and self._store.blobs.size(digest) is not None:
                return None
            if fill is None and self._offline:
                raise Offline(f"{digest} is not in the store, and the mirror is offline")
            if address is None and self._must_ask(digest, size, fill):
                address = await self.locate(name, digest)
                if size not in (None, address.size):
                    raise UpstreamMisbehaved(
                        f"{digest.short}: a manifest says {size} bytes, upstream it has {address.size}"
                    )
                size = address.size
                continue
            if fill is not None:
                if self._is_good_for(name, fill, size):
                    return fill
                await self._give_up(fill)
                continue
            if size is None:
                raise AssertionError("where nobody knew the size, the upstream was asked above")
            self._refuse_wrong(name, digest, size)
            accept(size)
            promise = await self._promised(name, digest, size)
            if digest not in self._running and self._store.blobs.size(digest) is None:
                return self._start(name, digest, size, address, promise, 1)
            promise.close()

    def _must_ask(self, digest: Digest, size: int | None, fill: Fill | None) -> bool:
        """Whether the asker's own upstream has to be asked first, for the size or because of where the asker came by.

        What came through other mirrors may be part of a ring of them, and must not wait for itself.
        """
        untouched = fill is None or fill.here == 0
        if self._upstreams.chain.before and untouched:
            return True
        if fill is not None:
            return size is not None and fill.size != size
        return size is None or self._store.partial_size(digest) not in (None, size)

    def _is_good_for(self, name: ModelName, fill: Fill, size: int | None) -> bool:
        """Whether an asker may join a fill. Raises UpstreamMisbehaved where a better upstream says otherwise."""
        owner = self._owners[fill.digest]
        mine, its = self._upstreams.rank(name), self._upstreams.rank(owner)
        if size is None or fill.size == size:
            return its <= mine
        if its < mine:
            raise UpstreamMisbehaved(f"{fill.digest.short}: {owner.host} has it with {fill.size} bytes, not {size}")
        return False

    async def _give_up(self, fill: Fill) -> None:
        """End a fill that is no good, and throw away what it brought."""
        self._given_up.add(fill)
        fill.park()
        await fill.ended.wait()
        self._given_up.discard(fill)
        await self._store.drop_leftover(fill.digest)

    def park(self) -> None:
        """Stop every fill for good and keep what is here; each ends soon after."""
        self._stopping = True
        for fill in self.in_flight:
            fill.park()

    def left(self, fill: Fill, *, parks: bool = False) -> None:
        """A reader has left: the others' shares change, and a fill nobody wants may be parked, or is with ``parks``."""
        if not fill.wanted and (parks or not self._keep_filling):
            fill.park()
        self._share()

    async def locate(self, name: ModelName, digest: Digest) -> Address:
        """Ask a model's upstream where a blob is and how large; many askers are one question.

        That it has none is believed for a moment (``cache.negative_ttl``). Raises UpstreamError.
        """
        upstream, before = self._upstreams.of(name), self._upstreams.chain.before
        key = (name.host.lower(), name.repository, digest)
        if self._absent.get(key, 0.0) > time.monotonic():
            raise NotFoundUpstream(f"blob {digest.short} of {name.repository}: not found upstream a moment ago")
        try:
            return await self._locating.ask((*key, before), lambda: upstream.locate(name.repository, digest, None))
        except NotFoundUpstream:
            self._absent[key] = time.monotonic() + self._absent_s
            if len(self._absent) > _MOST_ABSENT:
                self._absent = {one: until for one, until in self._absent.items() if until > time.monotonic()}
            while len(self._absent) > _MOST_ABSENT:
                del self._absent[next(iter(self._absent))]
            raise

    async def _promised(self, name: ModelName, digest: Digest, size: int) -> Promise:
        """Have room set aside for a blob, and for all that its model still lacks: half a model serves nobody."""
        try:
            return await self._keeper.promise({**self._store.to_come(name, digest), digest: size})
        except StoreError as error:
            self._tell_not_kept(digest, error)
            raise

    def _tell_not_kept(self, digest: Digest, error: StoreError) -> None:
        """Tell it once a minute of each blob, not at each of the sixteen ranges of it."""
        now = time.monotonic()
        self._told = {one: at for one, at in self._told.items() if now - at < _TOLD_S}
        if digest not in self._told:
            self._told[digest] = now
            self._events.publish(NotKept(digest, str(error)))

    def _start(
        self, name: ModelName, digest: Digest, size: int, address: Address | None, promise: Promise, attempt: int
    ) -> Fill:
        # no await until the fill is in the table: two callers must not start one each
        if self._stopping:
            promise.close()
            raise UpstreamUnavailable("the mirror is stopping")
        upstream = self._upstreams.of(name)
        try:
            partial = Partial.open(self._store.layout, digest, size)
        except StoreError as error:
            promise.close()
            self._tell_not_kept(digest, error)
            raise
        fill = Fill(
            partial,
            BlobOf(upstream, name, digest, size),
            address,
            self._tries,
            self._events,
            self._threads,
            allowance=self._allowance,
            published=self._store.arrived,
        )
        self._running[digest] = fill
        self._owners[digest] = name
        self._group.create_task(self._run(fill, name, promise, attempt), name=f"fill {digest.short}")
        self._share()
        return fill

    async def _run(self, fill: Fill, name: ModelName, promise: Promise, attempt: int) -> None:
        """Run it, and after wrong bytes another in its place, for a few times."""
        again = False
        try:
            await fill.run()
            again = isinstance(fill.error, DigestMismatch) and not self._stopping
        finally:
            del self._running[fill.digest], self._owners[fill.digest]
            self._share()
            if fill.error is None and not self._stopping and fill not in self._given_up:
                asyncio.get_running_loop().call_later(_NEXT_BLOB_S, promise.close)
            elif not again or attempt == _MISMATCHES:
                promise.close()
        if again and attempt < _MISMATCHES:
            with suppress(StoreError):  # whoever asks next is told
                self._start(name, fill.digest, fill.size, None, promise, attempt + 1)
        elif isinstance(fill.error, DigestMismatch) and again:
            self._wrong[name.host.lower(), fill.digest, fill.size] = (time.monotonic() + self._wrong_s, fill.error)

    def _refuse_wrong(self, name: ModelName, digest: Digest, size: int) -> None:
        """Raise for a blob that the upstream has wrong; to fetch all of it at every request would help nobody."""
        now = time.monotonic()
        self._wrong = {one: (until, error) for one, (until, error) in self._wrong.items() if until > now}
        if found := self._wrong.get((name.host.lower(), digest, size)):
            raise found[1]

    def _allowance(self, fill: Fill) -> int:
        """How many connections a fill may use: those with readers share, those fetched ahead get one meanwhile."""
        urgent = sum(one.urgent for one in self.in_flight)
        if not urgent or fill.urgent:
            return max(1, self._connections // max(1, urgent or len(self._running)))
        return 1

    def _share(self) -> None:
        for fill in self.in_flight:
            fill.wake()
