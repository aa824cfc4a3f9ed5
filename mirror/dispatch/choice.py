"""Where a request runs: which of the backends comes first for it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A backend as one request sees it.

    ``active`` of its ``slots`` are taken; ``cpu`` is its load from 0 to 1, None where nobody says; ``failures`` are the
    recent ones. ``has`` and ``loaded`` are about the request's model: on its disk, in its memory. ``sticky``: it served
    this conversation last. A backend of ``weight`` 2 is given twice as many jobs at once as one of 1.
    Raises ValueError for numbers that are none of these, by which nothing can be put in order.
    """

    id: str
    online: bool = True
    has: bool = True
    allowed: bool = True
    draining: bool = False
    active: int = 0
    slots: int = 1
    cpu: float | None = None
    failures: int = 0
    loaded: bool = False
    sticky: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        sound = self.cpu is None or 0 <= self.cpu <= 1
        if not (
            sound and isfinite(self.weight) and self.weight > 0 and min(self.active, self.slots, self.failures) >= 0
        ):
            msg = f"not the numbers of a backend: {self}"
            raise ValueError(msg)

    @property
    def may(self) -> bool:
        """Whether the request may run there now."""
        ready = self.online and self.has and self.allowed and not self.draining
        return ready and self.active < self.slots


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return those where the request may run now, the best first.

    It has the model and is online; then the fewest active jobs, for its weight; the lowest CPU, where unknown counts as
    busy; the fewest failures. Where all that is equal: the model loaded, the same conversation, the greater weight; and
    the id, so that the order does not depend on theirs.
    """
    return sorted((one for one in candidates if one.may), key=_rank)


def choose(candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the best of them, or None when the request may run nowhere now."""
    return min((one for one in candidates if one.may), key=_rank, default=None)


def _rank(one: Candidate) -> tuple[float, float, int, bool, bool, float, str]:
    cpu = 1.0 if one.cpu is None else one.cpu
    return one.active / one.weight, cpu, one.failures, not one.loaded, not one.sticky, -one.weight, one.id
