"""What goes and why: a pure function of what is there. It looks at no disk, no clock and no settings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from mirror.events import Reason
from mirror.values import Digest, ModelName


class Kind(StrEnum):
    """What a row of the plan removes."""

    MODEL = "model"
    BLOB = "blob"
    PARTIAL = "partial"
    MANIFEST = "manifest"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model, whole or not: when it was last used (aware), and why it must stay, if it must."""

    name: ModelName
    blobs: frozenset[Digest]
    used_at: datetime
    kept_for: str | None = None


@dataclass(frozen=True, slots=True)
class Loose:
    """Something on disk that belongs to no model: a blob, an unfinished blob, a manifest, what was put aside."""

    kind: Kind
    what: str
    size: int
    touched_at: datetime
    digest: Digest | None = None
    name: ModelName | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is there. Sizes in bytes.

    ``sizes`` is what blobs take on disk, unfinished ones too; ``promised`` what is still to come of ``size``, ``free``
    what the disk has left beyond what is still to be written. Blobs of ``held`` stay, whoever names them.
    """

    models: Sequence[ModelFacts]
    sizes: Mapping[Digest, int]
    held: Set[Digest] = frozenset()
    loose: Sequence[Loose] = ()
    promised: int = 0
    free: int | None = None
    now: datetime = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is wanted. Below ``size`` and above ``free`` nothing goes for room; else down or up to the low marks."""

    size: int | None = None
    low_size: int | None = None
    free: int = 0
    low_free: int = 0
    retention: timedelta | None = None
    loose_retention: timedelta = timedelta(days=1)
    leftover_retention: timedelta = timedelta(days=7)
    grace: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that goes: what, how many bytes it frees, and why, as a word and as a phrase."""

    kind: Kind
    what: str
    frees: int
    reason: Reason
    why: str
    used_at: datetime | None = None
    digest: Digest | None = None
    name: ModelName | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes, in this order, and what that comes to; ``short`` says what it does not reach, and why not."""

    rows: tuple[Row, ...]
    size_before: int
    size_after: int
    free_after: int | None
    kept: tuple[tuple[ModelName, str], ...]
    short: str | None

    @property
    def frees(self) -> int:
        """The bytes it frees."""
        return sum(row.frees for row in self.rows)


def plan(facts: Facts, rules: Rules) -> Plan:
    """Return what has to go: what is too old, what nobody names, then the least recently used models for room."""
    return _Planner(facts, rules).plan()


class _Planner:
    def __init__(self, facts: Facts, rules: Rules) -> None:
        self._facts = facts
        self._rules = rules
        self._rows: list[Row] = []
        self._naming = Counter(digest for model in facts.models for digest in model.blobs)
        self._freed: set[Digest] = set()
        aside = sum(loose.size for loose in facts.loose if loose.kind is Kind.QUARANTINE)
        self._before = sum(facts.sizes.values()) + aside + facts.promised
        self._size = self._before
        self._free = facts.free
        self._oldest_first = sorted(facts.models, key=lambda one: (one.used_at, one.name))

    def plan(self) -> Plan:
        self._drop_leftovers()
        self._drop_aside()
        staying = self._drop_expired()
        self._drop_loose(self._rules.loose_retention, Reason.LOOSE)
        wanted = self._room_wanted()
        if wanted is not None:
            self._drop_loose(self._rules.grace, wanted)
        if self._room_wanted() is not None:
            self._make_room(staying)
        kept = tuple((model.name, model.kept_for) for model in self._oldest_first if model.kept_for)
        return Plan(tuple(self._rows), self._before, self._size, self._free, kept, self._short())

    def _drop_leftovers(self) -> None:
        for loose in self._facts.loose:
            age = self._age(loose.touched_at)
            if loose.kind is Kind.BLOB or age < self._rules.leftover_retention or loose.digest in self._facts.held:
                continue
            if loose.digest is not None:
                self._freed.add(loose.digest)
            self._add(loose.kind, loose.what, loose.size, Reason.LEFTOVER, f"untouched for {_days(age)}", loose=loose)

    def _drop_aside(self) -> None:
        """Where room is wanted, what turned out to be no blob goes before anything else."""
        wanted = self._room_wanted()
        gone = {row.what for row in self._rows}
        for loose in self._facts.loose:
            if wanted is not None and loose.kind is Kind.QUARANTINE and loose.what not in gone:
                self._add(loose.kind, loose.what, loose.size, wanted, "damaged", loose=loose)

    def _drop_expired(self) -> list[ModelFacts]:
        """Drop what nobody used for too long; return the models that stay so far."""
        if self._rules.retention is None:
            return list(self._oldest_first)
        staying = []
        for model in self._oldest_first:
            age = self._age(model.used_at)
            if age >= self._rules.retention and not model.kept_for:
                self._drop_model(model, Reason.RETENTION, f"unused for {_days(age)}")
            else:
                staying.append(model)
        return staying

    def _drop_loose(self, older_than: timedelta, reason: Reason) -> None:
        for loose in self._facts.loose:
            age = self._age(loose.touched_at)
            old = loose.kind is Kind.BLOB and age >= older_than
            if old and loose.digest is not None and self._free_blob(loose.digest):
                self._add(loose.kind, loose.what, loose.size, reason, "no model names it", loose=loose)

    def _make_room(self, models: Iterable[ModelFacts]) -> None:
        """Drop the least recently used until the low marks are reached; then spare those that free nothing."""
        reason = Reason.SIZE
        taken: list[tuple[int, ModelFacts]] = []
        for model in models:
            if self._within_low_marks():
                break
            if not model.kept_for:
                reason = self._room_wanted() or reason  # below the high mark it is still for what passed that
                taken.append((len(self._rows), model))
                self._drop_model(model, reason, "least recently used")
        needless = {at for at, model in taken if not any(map(self._facts.sizes.get, model.blobs & self._freed))}
        self._rows = [row for at, row in enumerate(self._rows) if at not in needless]

    def _drop_model(self, model: ModelFacts, reason: Reason, why: str) -> None:
        frees = 0
        for digest in model.blobs:
            self._naming[digest] -= 1
            if self._free_blob(digest):
                frees += self._facts.sizes.get(digest, 0)
        self._add(Kind.MODEL, model.name.short, frees, reason, why, used_at=model.used_at, name=model.name)

    def _free_blob(self, digest: Digest) -> bool:
        """Count a blob as gone, unless somebody has or names it, or it has gone already."""
        if digest in self._freed or digest in self._facts.held or self._naming[digest]:
            return False
        self._freed.add(digest)
        return True

    def _add(
        self,
        kind: Kind,
        what: str,
        frees: int,
        reason: Reason,
        why: str,
        *,
        used_at: datetime | None = None,
        name: ModelName | None = None,
        loose: Loose | None = None,
    ) -> None:
        digest = loose.digest if loose else None
        self._rows.append(Row(kind, what, frees, reason, why, used_at, digest, name or (loose.name if loose else None)))
        self._size -= frees
        self._free = self._free + frees if self._free is not None else None

    def _room_wanted(self) -> Reason | None:
        """For what something must go, by the high marks; None when all is within them."""
        if self._rules.size is not None and self._size > self._rules.size:
            return Reason.SIZE
        return Reason.FREE if self._free is not None and self._free < self._rules.free else None

    def _within_low_marks(self) -> bool:
        small = self._rules.low_size is None or self._size <= self._rules.low_size
        return small and (self._free is None or self._free >= self._rules.low_free)

    def _short(self) -> str | None:
        wanted = self._room_wanted()
        if wanted is None:
            return None
        lacking = (
            f"{self._size - (self._rules.size or 0)} bytes over the size limit"
            if wanted is Reason.SIZE
            else f"{self._rules.free - (self._free or 0)} bytes short of the free space wanted"
        )
        kept = sum(1 for model in self._facts.models if model.kept_for)
        return f"still {lacking}: {kept} models are pinned or in use, and nothing else is left to drop"

    def _age(self, instant: datetime) -> timedelta:
        """How long ago; a clock that was set back makes nothing old."""
        return max(timedelta(0), self._facts.now - instant)


def _days(age: timedelta) -> str:
    if age >= timedelta(days=2):
        return f"{age.days} days"
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours >= 2 else f"{hours * 60:.0f} minutes"
