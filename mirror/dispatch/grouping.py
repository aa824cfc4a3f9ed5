"""Whose turn it is: the first lane that is due, or one whose model is loaded already. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from mirror.dispatch.lane import Lane

T = TypeVar("T")
R = TypeVar("R")

REACH = 32
"""How many lanes behind the due one are looked at for one that is preferred."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long heads may be passed over so that models are not swapped at each turn.

    So many ``turns`` (0 is no grouping), and no more once ``seconds`` have gone by since the first of them.
    """

    turns: int = 3
    seconds: float = 10.0

    def spent(self, lane: Lane[T], now: float) -> bool:
        """Whether nobody may go before this lane's head any more."""
        since = lane.passed_since
        return lane.passed >= self.turns or (since is not None and now - since >= self.seconds)


@dataclass(slots=True)
class Turn(Generic[T, R]):
    """Whose turn it is, and with what: ``lane`` goes, ``due`` was the first that could.

    ``unfit`` were before it in the order, and nothing could take their heads; ``passed`` could have gone.
    """

    due: Lane[T]
    lane: Lane[T]
    backend: R
    unfit: list[Lane[T]]
    passed: list[Lane[T]] = field(default_factory=list)


def turn(
    lanes: Iterable[Lane[T]],
    fits: Callable[[T], R | None],
    prefers: Callable[[T, R], bool] | None,
    patience: Patience,
    now: float,
) -> Turn[T, R] | None:
    """Say whose turn it is, of ``lanes`` in the order in which they are due; None when no head fits.

    The first whose head fits is due. Where ``prefers`` does not want it, the next that fits and is preferred goes
    before it, unless a lane on the way has spent its patience. No lane goes before its turn more than
    ``patience.turns`` times until it is due itself, so that what it gains so is repaid before it gains more.
    """
    walk = iter(lanes)
    unfit: list[Lane[T]] = []
    for lane in walk:
        backend = fits(lane.head.item)
        if backend is None:
            unfit.append(lane)
            continue
        due = Turn(lane, lane, backend, unfit)
        if prefers is None or patience.spent(lane, now) or prefers(lane.head.item, backend):
            return due
        return _preferred(due, islice(walk, REACH), fits, prefers, patience, now) or due
    return None


def _preferred(
    due: Turn[T, R],
    behind: Iterable[Lane[T]],
    fits: Callable[[T], R | None],
    prefers: Callable[[T, R], bool],
    patience: Patience,
    now: float,
) -> Turn[T, R] | None:
    """Say who goes before the lane that is due, of those behind it."""
    passed = [due.due]
    for lane in behind:
        backend = fits(lane.head.item)
        if backend is None:
            continue
        if lane.ahead < patience.turns and prefers(lane.head.item, backend):
            return Turn(due.due, lane, backend, due.unfit, passed)
        if patience.spent(lane, now):
            return None
        passed.append(lane)
    return None
