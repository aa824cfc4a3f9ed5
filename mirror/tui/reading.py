"""What a mirror says of itself, as rows. Pure.

Whatever a mirror leaves out, or says in another form, is empty or nought here: a view is no place to fail.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mirror.wording import harmless, when

View = Mapping[str, Any]

_MOST = 1e18


@dataclass(frozen=True, slots=True)
class User:
    """A user, with what waits and runs of theirs and what they have had."""

    name: str
    waiting: int = 0
    running: int = 0
    taken: int = 0
    cost: float = 0.0
    weight: float = 1.0
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """An Ollama. ``cpu`` is from 0 to 1, None where it does not tell."""

    id: str
    state: str = ""
    active: int = 0
    slots: int = 0
    models: int = 0
    loaded: tuple[str, ...] = ()
    cpu: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Fill:
    """A blob on its way in. ``rate`` is in bytes per second, None where it is not known yet."""

    digest: str
    size: int = 0
    here: int = 0
    readers: int = 0
    connections: int = 0
    models: tuple[str, ...] = ()
    rate: float | None = None

    @property
    def short(self) -> str:
        """The models that it is part of, or the first 12 digits where none is known."""
        return ", ".join(self.models) or self.digest.removeprefix("sha256:")[:12]

    @property
    def left_s(self) -> float | None:
        """Seconds until it is here; None where nobody can say."""
        return (self.size - self.here) / self.rate if self.rate else None


@dataclass(frozen=True, slots=True)
class Job:
    """A model that somebody wants. ``done`` is None until it is being fetched."""

    id: str
    name: str
    state: str = ""
    position: int = 0
    at_once: bool = False
    who: tuple[str, ...] = ()
    size: int | None = None
    done: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """What the store holds and may hold, in bytes, and what it has saved. ``limit`` is None for none."""

    directory: str
    models: int = 0
    incomplete: int = 0
    damaged: int = 0
    size: int = 0
    limit: int | None = None
    disk_free: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was served and fetched since the mirror counts: requests, and bytes."""

    hits: int = 0
    misses: int = 0
    served: int = 0
    fetched: int = 0
    saved: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """All that was seen in one look. ``window`` is a sentence on the queue of pulls; ``waiting`` counts requests."""

    users: tuple[User, ...] = ()
    backends: tuple[Backend, ...] = ()
    fills: tuple[Fill, ...] = ()
    jobs: tuple[Job, ...] = ()
    waiting: int = 0
    paused: bool = False
    window: str = ""
    store: StoreFigures | None = None
    traffic: Traffic = Traffic()


def read(turns: View, queue: View, stats: View, store: View | None) -> Reading:
    """Put the answers to GET /mirror/v1/turns, /mirror/v1/queue, /mirror/stats and /mirror/v1/store together."""
    return Reading(
        users=tuple(_user(one) for one in _rows(turns, "users")),
        backends=tuple(_backend(one) for one in _rows(turns, "backends")),
        fills=fills(stats),
        jobs=tuple(_job(one) for one in _rows(queue, "jobs")),
        waiting=_count(turns, "waiting"),
        paused=queue.get("paused") is True,
        window=_window(queue),
        store=_store(store) if store else None,
        traffic=Traffic(
            hits=_count(stats, "hits"),
            misses=_count(stats, "misses"),
            served=_count(stats, "bytes_served"),
            fetched=_count(stats, "bytes_fetched"),
            saved=_count(stats, "bytes_saved"),
        ),
    )


def fills(said: View) -> tuple[Fill, ...]:
    """Return the fills that an answer or an event holds."""
    return tuple(_fill(one) for one in _rows(said, "fills"))


def _user(said: View) -> User:
    return User(
        name=_text(said, "user"),
        waiting=_count(said, "waiting"),
        running=_count(said, "running"),
        taken=_count(said, "taken"),
        cost=_number(said, "cost") or 0.0,
        weight=_number(said, "weight") or 1.0,
        blocked=said.get("blocked") is True,
    )


def _backend(said: View) -> Backend:
    return Backend(
        id=_text(said, "id"),
        state=_text(said, "state"),
        active=_count(said, "active"),
        slots=_count(said, "slots"),
        models=_count(said, "models"),
        loaded=_texts(said, "loaded"),
        cpu=_number(said, "cpu"),
        problem=_text(said, "problem"),
    )


def _fill(said: View) -> Fill:
    return Fill(
        digest=_text(said, "digest"),
        size=_count(said, "size"),
        here=_count(said, "completed"),
        readers=_count(said, "readers"),
        connections=_count(said, "connections"),
        models=_texts(said, "models"),
    )


def _job(said: View) -> Job:
    return Job(
        id=_text(said, "id") or _text(said, "name"),
        name=_text(said, "name"),
        state=_text(said, "state"),
        position=_count(said, "position"),
        at_once=said.get("at_once") is True,
        who=_texts(said, "requesters"),
        size=_count(said, "size") if _number(said, "size") is not None else None,
        done=_count(said, "done") if _number(said, "done") is not None else None,
        error=_text(said, "error"),
    )


def _store(said: View) -> StoreFigures:
    return StoreFigures(
        directory=_text(said, "directory"),
        models=_count(said, "models"),
        incomplete=_count(said, "incomplete_models"),
        damaged=len(_texts(said, "damaged_models")),
        size=_count(said, "size"),
        limit=_count(said, "max_size") or None,
        disk_free=_count(said, "disk_free"),
    )


def _window(queue: View) -> str:
    try:
        return when(queue)
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""


def _rows(said: View, key: str) -> Iterator[View]:
    found = said.get(key)
    return (one for one in found if isinstance(one, dict)) if isinstance(found, list) else iter(())


def _number(said: View, key: str) -> float | None:
    found = said.get(key)
    if not isinstance(found, int | float) or isinstance(found, bool):
        return None
    return found if -_MOST < found < _MOST else None


def _count(said: View, key: str) -> int:
    return int(_number(said, key) or 0)


def _text(said: View, key: str) -> str:
    found = said.get(key)
    return harmless(found) if isinstance(found, str) else ""


def _texts(said: View, key: str) -> tuple[str, ...]:
    found = said.get(key)
    return tuple(harmless(one) for one in found if isinstance(one, str)) if isinstance(found, list) else ()
