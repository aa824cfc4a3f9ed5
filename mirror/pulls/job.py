"""A job: somebody's wish that a model be fetched, and what has become of it."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Self

from mirror.events import PullEnded
from mirror.values import ModelName


class State(StrEnum):
    """Where a job is. The first three are under way, the others over."""

    PENDING = "pending"
    """Waits for its turn, or for a window."""
    DOWNLOADING = "downloading"
    """Is being fetched into the store."""
    DELIVERING = "delivering"
    """Is in the store, and on its way to an Ollama."""
    COMPLETED = "completed"
    FAILED = "failed"
    """It could not be had, and is not tried again by itself; ``error`` says why."""
    CANCELLED = "cancelled"
    """Somebody took it back."""
    REFUSED = "refused"
    """The policy does not allow it."""

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self not in UNDER_WAY


UNDER_WAY = (State.PENDING, State.DOWNLOADING, State.DELIVERING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One wish for one model. Instants are aware UTC; ``size`` is in bytes, None until its manifest is known.

    Jobs go by ``priority``, the higher first, then by ``place``. One that is ``at_once`` waits for no window. After a
    failure that may pass it is pending again, not before ``not_before``, and ``error`` says what happened.
    """

    id: str
    name: ModelName
    state: State
    created_at: datetime
    place: float
    priority: int = 0
    size: int | None = None
    tries: int = 0
    not_before: datetime | None = None
    at_once: bool = False
    error: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    requesters: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, float]:
        """By which jobs are sorted."""
        return -self.priority, self.place

    def ready(self, now: datetime, *, open_: bool) -> bool:
        """Say whether it may be begun at ``now``, where ``open_`` says that a window is open.

        What is in the store already is delivered at any hour.
        """
        if self.not_before is not None and self.not_before > now:
            return False
        return self.state is State.DELIVERING or (self.state is State.PENDING and (open_ or self.at_once))

    def end(self) -> PullEnded:
        """Return the news that it is over."""
        return PullEnded(
            id=self.id,
            name=self.name,
            outcome=self.state.value,
            size=self.size,
            requesters=self.requesters,
            tries=self.tries,
            error=self.error,
            created_at=self.created_at,
            finished_at=self.finished_at or self.created_at,
        )

    def asked_by(self, who: str) -> Self:
        """Return the job with one more requester."""
        return self if who in self.requesters else replace(self, requesters=(*self.requesters, who))
