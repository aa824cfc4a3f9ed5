"""Who runs next: a FIFO lane for each user, and lanes served in turn. Pure; the caller says what time it is.

**How it goes.** Each lane has a virtual time, at which its next turn is due. The lane with the least goes next, and is
then moved on by what the turn is charged, divided by the user's weight: 1 where turns are shared (``Sharing.TURNS``),
else its cost (``Sharing.COST``). Of two lanes due at the same time the one that was moved first goes first, so that
equal charges are plain round robin. The queue's clock is the virtual time at which the latest of all turns was due; it
never goes back. A lane that comes to have work, or could not run while others did, is due at the clock at the earliest:
nobody saves up turns. (This is start-time fair queueing, Goyal, Vin and Cheng 1996.)

**What it promises**, with ``p`` for ``patience.turns`` where ``take`` is told what to prefer, and 0 where it is not:

1. Nothing is lost or given twice, and a user's requests run in the order in which they came.
2. Turns: of any ``k * (p + 1)`` consecutive turns each user has at least one, if all the while it has a head that fits;
   ``k`` is how many users had work meanwhile, all of one weight. *Proof.* Let c be the clock. A lane A that waits is
   due at c + 1 + p at most: it was moved by 1 when it was due, p times when it was not. Others start at c at the
   earliest and move by 1, so each has p + 1 turns before it stands behind A; behind A, all of them together may pass it
   p times. So A waits for (k - 1)(p + 1) + p turns at most.
3. Cost: let two users have work that fits all the while, C be the largest cost or estimate over its user's weight, and
   r how many requests run at once. Then what was taken of each did cost, over the weights, the same but for (r + p) C
   since both began together, and but for 2 (r + p) C over any stretch. *Proof.* When A is taken as the one due, it is
   due no later than B. Of both together r - 1 may run then, each of which may cost up to C more or less than was
   charged. A is moved by C, and p times more before it is due again, and what B got only grows. So A is no more than
   (r + p) C beyond B, and B no more than that beyond A. A stretch is the difference of two instants.
4. A lane whose head fits nothing stands in nobody's way and keeps its claim: it goes first once it fits. So does one
   whose turn was given back. For that it has one turn, and is due with the others after it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Generic, TypeVar

from mirror.dispatch.depths import Depths
from mirror.dispatch.due import DueOrder
from mirror.dispatch.grouping import Patience, turn
from mirror.dispatch.lane import Lane, Place
from mirror.errors import TooManyWaiting, UserBlocked

T = TypeVar("T")
R = TypeVar("R")


class Sharing(StrEnum):
    """What is shared out evenly: turns, each as good as another, or what they cost."""

    TURNS = "turns"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class Rules:
    """How a queue shares, and its bounds: how many may wait of one user and in all, how many idle users it knows."""

    sharing: Sharing = Sharing.TURNS
    lane: int = 1000
    total: int = 10_000
    idle: int = 10_000
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Usage:
    """A user for people to look at: how many wait and run, were taken, and what those cost, as far as is known."""

    user: str
    waiting: int
    running: int
    taken: int
    cost: float
    weight: float
    blocked: bool


class FairQueue(Generic[T]):
    """What waits for a turn, and what runs; see the module for how turns are shared and what is promised.

    With n users who have something waiting, all that changes it takes O(log n), and ``take`` as much for each lane that
    it comes to: one when the first head fits. Costs are of any unit, finite and not negative; weights finite and above
    0, and 1 for who was given none: else ValueError. Of users who have nothing waiting and nothing running those who
    were here last are remembered; a name that comes back after that begins anew.
    Not to be called from within ``fits`` and ``prefers``.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._lanes: dict[str, Lane[T]] = {}
        self._order: DueOrder[Lane[T]] = DueOrder()
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._weights: dict[str, float] = {}
        self._blocked: set[str] = set()
        self._depths = Depths()
        self._clock = 0.0
        self._waiting = 0

    def put(self, user: str, item: T, now: float, *, cost: float = 1.0) -> Place[T]:
        """Let a request wait, which is thought to cost so much; return its place.

        Raises UserBlocked, and TooManyWaiting where the user's lane or the queue is full; nothing is kept then.
        """
        _check(cost)
        self._admit(user)
        lane = self._lanes.get(user)
        if lane is None:
            lane = self._lanes[user] = Lane(user)
        self._idle.pop(user, None)
        place = lane.put(item, now, cost)
        self._waiting += 1
        self._depths.grown(len(lane.waiting))
        if lane not in self._order:
            lane.join(self._clock)
            self._order.put(lane, lane.due)
        return place

    def drop(self, place: Place[T]) -> bool:
        """Take out a request whose client has left; False when it does not wait any more."""
        lane = place.lane
        if lane.waiting.pop(place.number, None) is None:
            return False
        self._less(lane)
        if not lane.waiting:
            self._order.remove(lane)
            self._rest(lane)
        return True

    def take(
        self, fits: Callable[[T], R | None], now: float, prefers: Callable[[T, R], bool] | None = None
    ) -> tuple[Place[T], R] | None:
        """Give a turn to the first head that ``fits`` has a backend for; return its place and that backend.

        None when no head fits, after asking about each: so ask when a backend is free. ``prefers`` says of an item and
        its backend whether the model is loaded there; such a one may go before others, in the bounds of the rules'
        ``patience``. What was taken runs until it is settled.
        """
        found = turn(self._order, fits, prefers, self._rules.patience, now)
        if found is None:
            return None
        for lane in found.unfit:
            lane.late = True
        for lane in found.passed:
            lane.pass_over(now)
        lane = found.lane
        lane.ahead = 0 if lane is found.due else lane.ahead + 1
        return self._start(lane, due=found.due), found.backend

    def settle(self, place: Place[T], cost: float | None = None) -> bool:
        """A request runs no more, and did cost so much (None: what was thought); False when it did not run.

        Where cost is shared, the difference to what was thought is charged or given back, by the weight of then.
        """
        if cost is not None:
            _check(cost)
        lane = place.lane
        if lane.running.pop(place.number, None) is None:
            return False
        if cost is not None:
            before = lane.due
            lane.correct(place, cost, charged=self._rules.sharing is Sharing.COST)
            if lane in self._order and lane.due != before:
                self._order.put(lane, lane.due)
        self._rest(lane)
        return True

    def give_back(self, place: Place[T]) -> bool:
        """A request that was taken could not run after all: it waits again, before all of its user's that came later.

        False when it did not run. The turn is not charged, and counts for none; the bounds do not hold it up. A blocked
        user's request waits too.
        """
        lane = place.lane
        if place.number not in lane.running:
            return False
        before = lane.due
        lane.give_back(place, self._charge(place))
        self._waiting += 1
        if lane.user not in self._blocked:
            self._depths.grown(len(lane.waiting))
            if lane not in self._order or lane.due != before:
                self._order.put(lane, lane.due)
        return True

    def position(self, place: Place[T]) -> int | None:
        """Return the how-manieth it will be served at most, counted from 1; None when it does not wait or is blocked.

        Of what waits now, and with equal charges and weights, every head fitting and nothing grouped, it is a bound:
        each lane has as many turns before it as it has in its own. Else it is an estimate; what comes later may go
        before it too. One who left from the middle of its lane is counted until the head has come to there.
        """
        lane = place.lane
        if place.number not in lane.waiting or lane.user in self._blocked:
            return None
        depth = place.number - lane.head.number + 1
        return self._depths.down_to(min(depth, len(lane.waiting)))

    def waiting(self, user: str) -> int:
        """Return how many of this user wait."""
        lane = self._lanes.get(user)
        return len(lane.waiting) if lane else 0

    def __len__(self) -> int:
        return self._waiting

    def __iter__(self) -> Iterator[Place[T]]:
        """Yield what waits, user by user, each one's in their order; nothing may change meanwhile."""
        for lane in self._lanes.values():
            yield from lane.waiting.values()

    def users(self) -> list[Usage]:
        """Return all users that are known: who have something here, were here last, or are blocked."""
        unseen: list[Lane[T]] = [Lane(user) for user in self._blocked if user not in self._lanes]
        return [self._usage(lane) for lane in (*self._lanes.values(), *unseen)]

    def weigh(self, user: str, weight: float) -> None:
        """Give a user so many times the share of one who has 1, from its next turn on."""
        if not (isfinite(weight) and weight > 0):
            msg = f"a weight is above 0, not {weight}"
            raise ValueError(msg)
        self._weights[user] = weight

    def block(self, user: str) -> None:
        """Serve and admit this user no more; what waits is kept, and what runs goes on."""
        if user in self._blocked:
            return
        self._blocked.add(user)
        lane = self._lanes.get(user)
        if lane and lane.waiting:
            self._order.remove(lane)
            for length in range(len(lane.waiting), 0, -1):
                self._depths.shrunk(length)

    def unblock(self, user: str) -> None:
        """Serve and admit this user again; what it missed meanwhile is not made up for."""
        if user not in self._blocked:
            return
        self._blocked.remove(user)
        lane = self._lanes.get(user)
        if lane and lane.waiting:
            lane.join(self._clock)
            self._order.put(lane, lane.due)
            for length in range(1, len(lane.waiting) + 1):
                self._depths.grown(length)

    def _admit(self, user: str) -> None:
        if user in self._blocked:
            raise UserBlocked(user)
        if self.waiting(user) >= self._rules.lane:
            raise TooManyWaiting(user, self._rules.lane, own=True)
        if self._waiting >= self._rules.total:
            raise TooManyWaiting(user, self._rules.total, own=False)

    def _start(self, lane: Lane[T], *, due: Lane[T]) -> Place[T]:
        """Let the head of a lane run; ``due`` is the one whose turn it was."""
        if lane.late:
            lane.catch_up(self._clock)
        self._clock = max(self._clock, due.due)
        place = lane.start(self._charge(lane.head), self._weights.get(lane.user, 1.0))
        self._less(lane)
        if lane.waiting:
            self._order.put(lane, lane.due)
        else:
            self._order.remove(lane)
        return place

    def _charge(self, place: Place[T]) -> float:
        return place.cost if self._rules.sharing is Sharing.COST else 1.0

    def _less(self, lane: Lane[T]) -> None:
        """One fewer waits in this lane."""
        self._waiting -= 1
        if lane.user not in self._blocked:
            self._depths.shrunk(len(lane.waiting) + 1)

    def _rest(self, lane: Lane[T]) -> None:
        """Count a lane that has nothing left as idle, and forget those that have been so the longest."""
        if lane.idle:
            self._idle[lane.user] = None
        while len(self._idle) > self._rules.idle:
            user, _ = self._idle.popitem(last=False)
            del self._lanes[user]

    def _usage(self, lane: Lane[T]) -> Usage:
        user = lane.user
        weight = self._weights.get(user, 1.0)
        blocked = user in self._blocked
        return Usage(user, len(lane.waiting), len(lane.running), lane.taken, lane.cost, weight, blocked)


def _check(cost: float) -> None:
    if not (isfinite(cost) and cost >= 0):
        msg = f"a cost is 0 or more, not {cost}"
        raise ValueError(msg)
