"""Keeps the store within its limits: makes the plan, carries it out, and has room promised to what comes in."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from mirror.config import CacheSettings, Share
from mirror.db import Ledger
from mirror.errors import StoreError, StoreFull
from mirror.events import BlobServed, Event, Events, LeftoverRemoved, Reason
from mirror.faultpoints import passing
from mirror.keep.facts import Gatherer, Snapshot
from mirror.keep.plan import Kind, Plan, Row, Rules, plan
from mirror.store import Limits, Pins, Promise, Store, StoredManifest, census
from mirror.store.rescan import dangles
from mirror.values import Digest

log = structlog.get_logger(__name__)

_READ_AGAIN_S = 1.0
_MOST_READ = 10_000
_REFUSED_S = 5.0
_NOW = timedelta(0)
_ALL = Rules(retention=_NOW, loose_retention=_NOW, leftover_retention=_NOW, grace=_NOW)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run did: the plan, the rows of it that were carried out and the bytes each freed."""

    plan: Plan
    done: tuple[tuple[Row, int], ...]

    @property
    def freed(self) -> int:
        """The bytes freed by all of it."""
        return sum(freed for _, freed in self.done)


class Keeper:
    """Says what goes, lets it go, and promises room. For the event loop's thread; looking and planning go to another.

    Nothing pinned, being read or being filled is ever dropped; what came into use between the plan and its turn stays.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        pins: Pins,
        settings: CacheSettings,
        events: Events,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.pins = pins
        self._store = store
        self._ledger = ledger
        self._settings = settings
        self._events = events
        self._now = now
        self._read: dict[Digest, tuple[float, datetime]] = {}
        self._refused: dict[Digest, tuple[float, str]] = {}
        self._turn = asyncio.Lock()
        shared, drop_theirs = settings.shared_with_ollama, settings.drop_ollama_models
        self._gatherer = Gatherer(store.layout, ledger, pins, self._read_at, shared, drop_theirs)
        store.room.limits = self.limits
        store.may_replace = self._may_replace
        events.tap(self._hear, BlobServed)

    def limits(self) -> Limits:
        """What the store may take now; a share of the disk is one of its whole size. Raises StoreFull."""
        return Limits(self._settings.max_size, self._min_free())

    def change(self, said: Mapping[str, object]) -> None:
        """Go by other limits and retentions from now on; ``said`` are settings of the cache by their names."""
        self._settings = self._settings.model_copy(update=dict(said))
        self._refused.clear()

    async def run(self) -> None:
        """Look now and every ``cache.cleanup_interval`` for what may go, until cancelled."""
        while True:
            try:
                done = await self.collect()
                if done.plan.short:
                    log.warning("store over its limits", problem=done.plan.short)
            except StoreError as error:
                log.warning("cannot tidy up the store", problem=str(error))
            await asyncio.sleep(self._settings.cleanup_interval)

    async def plan(self, coming: Mapping[Digest, int] | None = None, *, everything: bool = False) -> Plan:
        """Return what would go now, and to make room for ``coming`` (sizes in bytes). Changes nothing.

        With ``everything`` all goes that is not pinned, read or filled.

        Raises:
            StoreFull: the file system cannot be asked.
        """
        await self._store.refresh()
        self._ledger.settle()  # from here on an instant that is later means that it was used again
        snapshot = Snapshot.of(self._store, {**(coming or {}), **self._store.room.coming})
        free = self._store.room.free() if self._settings.min_free is not None else None
        rules, now, proven = _ALL if everything else self._rules(), self._now(), self._store.room.proven

        def look() -> tuple[Plan, int]:
            found = census(self._store.layout)
            facts = self._gatherer.gather(snapshot, found, free, now)
            if not everything and facts.sizes and (not facts.models or dangles(self._store.layout.manifests)):
                log.warning(
                    "manifests are not all there; loose blobs are left alone", store=str(self._store.layout.root)
                )
                facts = replace(facts, loose=[one for one in facts.loose if one.kind is not Kind.BLOB])
            made = plan(facts, rules)
            return made, sum(one.size for one in found.blobs.values())

        made, counted = await asyncio.to_thread(look)
        if self._store.room.proven == proven:  # nothing came or went meanwhile: what was counted is so
            self._store.room.proven = counted
        asked = tuple(replace(row, reason=Reason.ASKED, why="somebody asked for it") for row in made.rows)
        return replace(made, rows=asked) if everything else made

    async def collect(
        self, report: Callable[[Row, int], None] = lambda _row, _freed: None, *, everything: bool = False
    ) -> Collected:
        """Make a plan and carry it out; ``report`` is called with each row that is done and the bytes it freed.

        Raises:
            StoreFull: the tree cannot be written; what is done is done.
        """
        async with self._turn:
            made = await self.plan(everything=everything)
            return await self._carry_out(made, report)

    async def promise(self, blobs: Mapping[Digest, int]) -> Promise:
        """Set room aside for blobs of these sizes in bytes, and make it where there is not enough.

        Raises:
            StoreFull: it cannot be made; nothing was dropped for it.
        """
        room = self._store.room
        if room.shortage(blobs) is None:
            return room.promise(blobs)
        self._refuse_again(blobs)
        if self._may_make_room(blobs):
            async with self._turn:
                if room.shortage(blobs) is not None:
                    made = await self.plan(blobs)
                    if made.short is None:
                        await self._carry_out(made)
        try:
            return room.promise(blobs)
        except StoreFull as error:
            until = time.monotonic() + _REFUSED_S
            self._refused |= dict.fromkeys(blobs, (until, str(error)))
            raise

    async def _carry_out(self, made: Plan, report: Callable[[Row, int], None] = lambda _row, _freed: None) -> Collected:
        done = []
        for row in made.rows:
            freed = await self._drop(row)
            passing("gc.row")
            if freed is not None:
                done.append((row, freed))
                report(row, freed)
        if done:
            await self._store.trash.emptied()
        return Collected(made, tuple(done))

    async def _drop(self, row: Row) -> int | None:
        """Carry out one row; None where what it says is not so any more."""
        if row.kind is Kind.MODEL:
            return await self._drop_model(row)
        freed: int | None = None
        if row.kind is Kind.BLOB and row.digest is not None:
            freed = (await self._store.drop_loose([row.digest])).get(row.digest)
        elif row.kind is Kind.PARTIAL and row.digest is not None:
            freed = await self._store.drop_leftover(row.digest) or None
        elif row.kind is Kind.MANIFEST and row.name is not None:
            freed = 0 if await self._store.unstage(row.name) else None
        elif row.kind is Kind.QUARANTINE:
            freed = row.frees if await self._store.drop_aside(row.what) else None
        if freed is not None:
            self._events.publish(LeftoverRemoved(row.kind.value, row.what, freed, row.reason, row.why))
        return freed

    async def _drop_model(self, row: Row) -> int | None:
        if row.name is None or row.used_at is None:
            return None
        await self._store.notice(row.name)
        stored = [one for shelf in (self._store.complete, self._store.staged) if (one := shelf.find(row.name))]
        read, coming = self._store.blobs.open_ones, self._store.room.coming.keys()
        used_at = self._ledger.use(row.name).used_at
        if any(blob.digest in read for one in stored for blob in one.blobs):
            return None
        lacking = {digest for one in stored for digest in self._store.missing(one)}
        if lacking and lacking <= coming:
            return None
        if self._settings.shared_with_ollama and any(one.written_at > row.used_at for one in stored):
            return None
        if self.pins.why(row.name) or (used_at is not None and used_at > row.used_at):
            return None
        return await self._store.remove(row.name, row.reason, row.why)

    def _may_make_room(self, blobs: Mapping[Digest, int]) -> bool:
        """Whether dropping could help: what is larger than the whole limit needs no plan to be refused."""
        if self._settings.max_size is not None and sum(blobs.values()) > self._settings.max_size:
            return False
        return self._settings.max_size is not None or self._settings.min_free is not None

    def _may_replace(self, stored: StoredManifest) -> bool:
        """Whether a newer manifest may take a model's name: not where an Ollama put it there for its own use."""
        if not self._settings.shared_with_ollama or self._settings.drop_ollama_models:
            return True
        return self._ledger.use(stored.name).stored_digest == str(stored.digest)

    def _refuse_again(self, blobs: Mapping[Digest, int]) -> None:
        """Raise what was raised a moment ago: sixteen ranges of one blob need one plan."""
        now = time.monotonic()
        self._refused = {digest: one for digest, one in self._refused.items() if one[0] > now}
        for digest in blobs:
            if digest in self._refused:
                raise StoreFull(self._refused[digest][1])

    def _rules(self) -> Rules:
        low = self._settings.low_water.percent / 100
        size, free = self._settings.max_size, self._min_free()
        retention = self._settings.retention
        return Rules(
            size=size,
            low_size=int(size * low) if size is not None else None,
            free=free,
            low_free=int(free / max(low, 0.01)),
            retention=timedelta(seconds=retention) if retention is not None else None,
            loose_retention=timedelta(seconds=self._settings.loose_retention),
            leftover_retention=timedelta(seconds=self._settings.partial_retention),
        )

    def _min_free(self) -> int:
        wanted = self._settings.min_free
        if isinstance(wanted, Share):
            return int(self._store.room.capacity() * wanted.percent / 100)
        return wanted or 0

    def _hear(self, event: Event) -> None:
        """Reading blobs is a use of the models that name them, also where no manifest was asked for."""
        if not isinstance(event, BlobServed):
            return
        now = time.monotonic()
        if now - self._read.get(event.digest, (float("-inf"), None))[0] < _READ_AGAIN_S:
            return
        self._read.pop(event.digest, None)
        while len(self._read) >= _MOST_READ:
            del self._read[next(iter(self._read))]
        self._read[event.digest] = (now, self._now())
        repository = event.name.with_tag("latest").folded
        for stored in self._store.complete.naming(event.digest):
            if stored.name.with_tag("latest").folded == repository:
                self._ledger.used(stored.name)

    def _read_at(self, digest: Digest) -> datetime | None:
        read = self._read.get(digest)
        return read[1] if read else None
