"""What is counted and remembered of models and bytes: kept in memory, written in batches."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db.batch import upsert, write_or_put_back
from mirror.db.engine import in_transaction
from mirror.db.history import TagHistory
from mirror.db.instants import aware
from mirror.db.tables import model_uses, traffic
from mirror.events import BlobServed, BytesFetched, Event, ManifestServed, ModelRemoved, ModelStored, Served
from mirror.values import ModelName

log = structlog.get_logger(__name__)

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ModelUse:
    """When a model's tag was last confirmed upstream and last asked for (aware UTC), and how often.

    ``stored_digest`` is that of the manifest that this mirror last completed under the name, as text.
    """

    checked_at: datetime | None = None
    used_at: datetime | None = None
    uses: int = 0
    stored_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """Blob requests and bytes; of one day or of all."""

    hits: int = 0
    misses: int = 0
    served_bytes: int = 0
    fetched_bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        pairs = zip(asdict(self).items(), asdict(other).values(), strict=True)
        return Traffic(**{name: mine + theirs for (name, mine), theirs in pairs})

    @property
    def saved_bytes(self) -> int:
        """Bytes that clients got and nobody had to fetch."""
        return max(0, self.served_bytes - self.fetched_bytes)


class Ledger:
    """Listens to the news and remembers. For the event loop's thread; ``flush`` writes what changed.

    ``kinds`` is the news it wants. A database that cannot be written costs nothing but the memory of it: it is tried
    again at the next flush. ``tags`` is what tags meant before; it is loaded, told and written with the rest.
    """

    kinds = (ManifestServed, BlobServed, BytesFetched, *TagHistory.kinds)

    def __init__(self, engine: AsyncEngine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.tags = TagHistory(engine, now)
        self._engine = engine
        self._clock = now
        self._uses: dict[str, ModelUse] = {}
        self._days: dict[str, Traffic] = {}
        self._changed_uses: set[str] = set()
        self._changed_days: set[str] = set()
        self._asked: Counter[ModelName] = Counter()
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._now: Counter[str] = Counter()

    async def load(self) -> None:
        """Read what earlier processes wrote."""
        await self.tags.load()

        async def read(connection: AsyncConnection) -> None:
            for row in await connection.execute(select(model_uses)):
                self._uses[row.name] = ModelUse(aware(row.checked_at), aware(row.used_at), row.uses, row.stored_digest)
                self._latest = max(self._latest, self._uses[row.name].used_at or self._latest)
            for row in await connection.execute(select(traffic)):
                self._days[row.day] = Traffic(row.hits, row.misses, row.served_bytes, row.fetched_bytes)

        await in_transaction(self._engine, read)

    def hear(self, event: Event) -> None:
        """Take note of one piece of news; the tap for ``Events``. Every request comes by here: it is kept cheap."""
        if isinstance(event, TagHistory.kinds):
            self.tags.hear(event)
        match event:
            case ManifestServed(name):
                self._asked[name.folded] += 1
            case BlobServed(_, _, result, sent):
                self._now["hits" if result is Served.HIT else "misses"] += 1
                self._now["served_bytes"] += sent
            case BytesFetched(_, count):
                self._now["fetched_bytes"] += count
            case ModelStored(name, digest):
                self._set(name, replace(self._recorded(name), stored_digest=str(digest)))
            case ModelRemoved(name):
                self._asked.pop(name.folded, None)
                self._set(name, ModelUse())
            case _:
                pass

    def use(self, name: ModelName) -> ModelUse:
        """Return what is remembered of a model, whatever the letter case of its name. Also for other threads."""
        known, asked = self._recorded(name), self._asked.get(name.folded)
        return replace(known, used_at=self._instant(), uses=known.uses + asked) if asked else known

    def used(self, name: ModelName) -> None:
        """A client has just read a model's blobs, which is a use though none that is counted."""
        self._latest = self._instant()
        self._set(name, replace(self._recorded(name), used_at=self._latest))

    def checked_at(self, name: ModelName) -> datetime | None:
        """Return when the upstream last confirmed what the tag means."""
        return self._recorded(name).checked_at

    def checked(self, name: ModelName, when: datetime) -> None:
        """The upstream has just confirmed what the tag means, at ``when``, an aware instant."""
        self._set(name, replace(self._recorded(name), checked_at=when.astimezone(UTC)))

    @property
    def total(self) -> Traffic:
        """Everything since the database was begun."""
        return sum(self._days.values(), Traffic(**self._now))

    def days(self, count: int) -> list[tuple[date, Traffic]]:
        """Return the last ``count`` days with what was moved on each, today the last; days are UTC's."""
        today = self._clock().date()
        known = [today - timedelta(days=ago) for ago in reversed(range(count))]
        found = [(day, self._days.get(day.isoformat(), Traffic())) for day in known]
        return [*found[:-1], (today, found[-1][1] + Traffic(**self._now))]

    async def flush(self) -> None:
        """Write what changed since the last time."""
        await self.tags.flush()
        self.settle()
        uses = [{"name": name, **asdict(self._uses[name])} for name in self._changed_uses]
        days = [{"day": day, **asdict(self._days[day])} for day in self._changed_days]
        if not uses and not days:
            return
        changed = self._changed_uses, self._changed_days
        self._changed_uses, self._changed_days = set(), set()

        async def write(connection: AsyncConnection) -> None:
            for table, rows in ((model_uses, uses), (traffic, days)):
                if rows:
                    await connection.execute(upsert(self._engine, table, lambda column, new: new), rows)

        def put_back() -> None:
            self._changed_uses |= changed[0]
            self._changed_days |= changed[1]

        await write_or_put_back(self._engine, write, put_back, "uses")

    def _instant(self) -> datetime:
        """Now, and after every use before it though the clock was set back: uses keep their order."""
        now = self._clock()
        return now if now >= self._latest else self._latest + _TICK

    def _recorded(self, name: ModelName) -> ModelUse:
        return self._uses.get(str(name.folded), ModelUse())

    def _set(self, name: ModelName, use: ModelUse) -> None:
        key = str(name.folded)
        self._uses[key] = use
        self._changed_uses.add(key)

    def settle(self) -> None:
        """Move what was counted since the last time into the records; instants are right to a flush."""
        now = self._clock()
        self._latest = self._instant()
        asked, self._asked = self._asked, Counter()
        for name, count in asked.items():
            use = self._recorded(name)
            self._set(name, replace(use, used_at=self._latest, uses=use.uses + count))
        if self._now:
            day = now.date().isoformat()
            self._days[day] = self._days.get(day, Traffic()) + Traffic(**self._now)
            self._now = Counter()
            self._changed_days.add(day)
