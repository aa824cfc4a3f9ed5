"""Which errors are foreseen: those that a fault which was under way may bring about. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_MOST = 2000


class Cause(StrEnum):
    """What goes wrong on purpose, or lies."""

    RESTART = "restart"
    UPSTREAM = "upstream fault"
    OLLAMA = "Ollama fault"
    DAMAGE = "damaged blob"
    LIE = "manifest that lies"
    SENDER = "killed sender"


class Work(StrEnum):
    """What is asked of the mirror."""

    MANIFEST = "manifests"
    BLOB = "blobs"
    PULL = "pulls by the API"
    ANSWER = "answers of models"
    JOB = "jobs of the hub"
    PROMPT = "prompts"
    BATCH = "batches"
    HEARTBEAT = "heartbeats"
    ADMIN = "admin commands"
    LOOK = "pages and statistics"
    EVENTS = "event streams"


class Failed(StrEnum):
    """How a request fails that got no status which says so."""

    REFUSED = "no connection"
    BROKEN = "broke off"
    LATE = "no answer in time"
    SAID = "error at the end of the answer"


_FETCHING = (Work.MANIFEST, Work.BLOB, Work.PULL)
_ANSWERING = (Work.ANSWER, Work.JOB, Work.PROMPT, Work.BATCH)
_UNREACHABLE = ("status 429", "status 502", "status 503", "status 504")

FORESEEN: tuple[tuple[Cause, tuple[Work, ...], tuple[str, ...]], ...] = (
    (Cause.LIE, _FETCHING, ("status 502", Failed.BROKEN, Failed.SAID)),
    # It names more bytes than the blob has that another model brought in: there is none of the last range.
    (Cause.LIE, (Work.BLOB,), ("status 416",)),
    (Cause.RESTART, tuple(Work), (Failed.REFUSED, Failed.BROKEN, Failed.SAID)),
    # A mirror that has just begun has not looked at its Ollamas yet, and one that ends gives no more turns.
    (Cause.RESTART, _ANSWERING, ("status 502", "status 503")),
    # A challenge or a redirect that leads nowhere is an upstream that refuses.
    (Cause.UPSTREAM, _FETCHING, (*_UNREACHABLE, "status 403", Failed.BROKEN, Failed.SAID)),
    (Cause.UPSTREAM, (Work.ADMIN,), (Failed.SAID,)),
    (Cause.OLLAMA, _ANSWERING, ("status 500", *_UNREACHABLE, Failed.BROKEN, Failed.SAID, Failed.LATE)),
    # A removal by the API is the Ollama's to do.
    (Cause.OLLAMA, (Work.ADMIN,), (Failed.SAID,)),
    # What was fetched is then delivered to an Ollama.
    (Cause.OLLAMA, (Work.PULL,), (Failed.SAID, Failed.LATE, "status 500", "status 502")),
    (Cause.DAMAGE, (Work.BLOB, Work.ADMIN), (Failed.BROKEN,)),
    # What was read from the process that sends is cut off; who asks again gets the rest.
    (Cause.SENDER, (Work.BLOB,), (Failed.BROKEN,)),
    (Cause.DAMAGE, (Work.PULL, Work.ADMIN), (Failed.SAID,)),
)
"""Cause, what was asked, and how that may fail then; the first that fits is taken for the cause."""

GRACE_S = {
    Cause.RESTART: 3.0,
    Cause.UPSTREAM: 6.0,
    Cause.OLLAMA: 6.0,
    Cause.DAMAGE: 10.0,
    Cause.LIE: 0.0,
    Cause.SENDER: 2.0,
}
"""How long a cause is felt after its end: waits before further tries, answers that are held to be true for a while."""


@dataclass(slots=True)
class Trouble:
    """One time that something was wrong; seconds of a clock that never goes back, ``ended`` None while it lasts."""

    cause: Cause
    what: str
    begun: float
    ended: float | None = None

    def felt(self, begun: float, ended: float) -> bool:
        """Whether something that lasted from ``begun`` to ``ended`` can have been hit."""
        over = self.ended is None or begun <= self.ended + GRACE_S[self.cause]
        return over and ended >= self.begun


class Timeline:
    """All that was wrong, and when."""

    def __init__(self) -> None:
        self._troubles: list[Trouble] = []

    def begin(self, cause: Cause, what: str, now: float) -> Trouble:
        """Note that something is wrong from now on."""
        trouble = Trouble(cause, what, now)
        self._troubles.append(trouble)
        if len(self._troubles) > _MOST:
            self._troubles = [one for one in self._troubles if one.ended is None or one.ended > now - 600]
        return trouble

    def causes(self, begun: float, ended: float) -> frozenset[Cause]:
        """Return what may have hit something that lasted so long."""
        return frozenset(one.cause for one in self._troubles if one.felt(begun, ended))

    def now_wrong(self) -> list[str]:
        """Return what is wrong just now, for a person who watches."""
        return [one.what for one in self._troubles if one.ended is None]


def foreseen(work: Work, error: str, causes: Iterable[Cause]) -> Cause | None:
    """Return the cause that explains this error of this work, None where none of them does."""
    there = set(causes)
    for cause, works, errors in FORESEEN:
        if cause in there and work in works and error in errors:
            return cause
    return None
