"""The fair queue beside one that is as plain as can be, through any sequence of what may happen to it."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mirror.dispatch import FairQueue, Patience, Place, Rules, Sharing
from mirror.errors import TooManyWaiting, UserBlocked

USERS = st.sampled_from("abc")
HERE = st.sampled_from(["xyz", "xyz", "xy", "z", ""]).map(frozenset)
LOADED = st.sampled_from(["x", "y", "yz", ""]).map(frozenset)
COSTS = st.integers(0, 40).map(float)
PICK = st.integers(0, 1000)


@dataclass
class PlainLane:
    """A user with all that is known of it."""

    waiting: list[Place[str]] = field(default_factory=list)
    running: list[Place[str]] = field(default_factory=list)
    due: float = 0.0
    moved: int = 0
    floor: float = 0.0
    late: bool = False
    passes: list[float] = field(default_factory=list)
    ahead: int = 0
    weight: float = 1.0
    blocked: bool = False
    taken: int = 0
    cost: float = 0.0


class AgainstAPlainOne(RuleBasedStateMachine):
    """Does the same to a FairQueue and to lists that are sorted anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, PlainLane] = {user: PlainLane() for user in "abc"}
        self.clock = self.now = 0.0
        self.moves = 0
        self.given: list[Place[str]] = []

    @initialize(
        sharing=st.sampled_from(Sharing),
        turns=st.integers(0, 3),
        seconds=st.sampled_from([3.0, 1e9]),
        backlog=st.lists(st.tuples(USERS, st.sampled_from("xyz"), COSTS), min_size=4, max_size=16),
    )
    def begin(self, sharing: Sharing, turns: int, seconds: float, backlog: list[tuple[str, str, float]]) -> None:
        """With any rules, and a queue in which some wait already."""
        self.set_to = Rules(sharing=sharing, lane=6, total=20, patience=Patience(turns, seconds))
        self.queue: FairQueue[str] = FairQueue(self.set_to)
        for user, model, cost in backlog:
            self.put(user, model, cost, 0)

    def _move(self, lane: PlainLane, due: float) -> None:
        self.moves += 1
        lane.due, lane.moved = due, self.moves

    def _correct(self, lane: PlainLane, due: float) -> None:
        if due != lane.due:
            self._move(lane, due)

    def _join(self, lane: PlainLane) -> None:
        lane.floor, lane.late, lane.passes = self.clock, False, []
        self._move(lane, max(lane.due, self.clock))

    def _charge(self, place: Place[str]) -> float:
        return place.cost if self.set_to.sharing is Sharing.COST else 1.0

    @rule(puts=st.lists(st.tuples(USERS, st.sampled_from("xyz"), COSTS, st.integers(0, 2)), min_size=2, max_size=9))
    def puts(self, puts: list[tuple[str, str, float, int]]) -> None:
        """Some come."""
        for user, model, cost, later in puts:
            self.put(user, model, cost, later)

    def put(self, user: str, model: str, cost: float, later: int) -> None:
        """Refused by the rules and for nothing else."""
        self.now += later
        lane = self.users[user]
        total = sum(len(one.waiting) for one in self.users.values())
        if lane.blocked:
            with pytest.raises(UserBlocked):
                self.queue.put(user, model, self.now, cost=cost)
        elif len(lane.waiting) >= 6 or total >= 20:
            with pytest.raises(TooManyWaiting) as refused:
                self.queue.put(user, model, self.now, cost=cost)
            assert refused.value.own == (len(lane.waiting) >= 6)
        else:
            lane.waiting.append(self.queue.put(user, model, self.now, cost=cost))
            if len(lane.waiting) == 1:
                self._join(lane)

    @rule(pick=PICK)
    def drop(self, pick: int) -> None:
        """A client leaves, from anywhere."""
        places = [place for lane in self.users.values() for place in lane.waiting]
        if places:
            place = places[pick % len(places)]
            self.users[place.user].waiting.remove(place)
            assert self.queue.drop(place)
            assert not self.queue.drop(place)

    @rule(takes=st.lists(st.tuples(HERE, LOADED | st.none(), st.integers(0, 2)), min_size=2, max_size=10))
    def takes(self, takes: list[tuple[frozenset[str], frozenset[str] | None, int]]) -> None:
        """Backends become free."""
        for here, loaded, later in takes:
            self.take(here, loaded, later)

    def take(self, here: frozenset[str], loaded: frozenset[str] | None, later: int) -> None:
        """The same one goes, whatever fits and is loaded."""
        self.now += later
        prefers = (lambda model, _: model in loaded) if loaded is not None else None
        taken = self.queue.take(lambda model: model if model in here else None, self.now, prefers)
        order = sorted(
            (lane for lane in self.users.values() if lane.waiting and not lane.blocked),
            key=lambda lane: (lane.due, lane.moved),
        )
        fitting = [lane for lane in order if lane.waiting[0].item in here]
        assert (taken is None) == (not fitting)
        if taken is None:
            return
        lane = self._whose_turn(fitting, loaded)
        assert taken == (lane.waiting[0], lane.waiting[0].item)
        assert taken[0] not in self.given, "nothing is given twice"
        self.given.append(taken[0])
        for one in order[: order.index(fitting[0])]:
            one.late = True
        for one in fitting[: fitting.index(lane)]:
            one.passes.append(self.now)
        lane.ahead = 0 if lane is fitting[0] else lane.ahead + 1
        self._run(lane, fitting[0])

    def _whose_turn(self, fitting: list[PlainLane], loaded: frozenset[str] | None) -> PlainLane:
        patience = self.set_to.patience
        for at, lane in enumerate(fitting):
            if loaded is None or (lane.waiting[0].item in loaded and (not at or lane.ahead < patience.turns)):
                return lane
            spent = lane.passes and self.now - lane.passes[0] >= patience.seconds
            if len(lane.passes) >= patience.turns or spent:
                break
        return fitting[0]

    def _run(self, lane: PlainLane, due: PlainLane) -> None:
        if lane.late:
            lane.floor, lane.due = self.clock, max(lane.due, self.clock)
        self.clock = max(self.clock, due.due)
        place = lane.waiting.pop(0)
        lane.running.append(place)
        lane.late, lane.passes = False, []
        lane.taken += 1
        lane.cost += place.cost
        self._move(lane, lane.due + self._charge(place) / lane.weight)

    @rule(pick=PICK, cost=COSTS | st.none())
    def settle(self, pick: int, cost: float | None) -> None:
        """What it did cost is made up for, where cost is shared."""
        place = self._running(pick)
        if place is None:
            return
        lane, thought, weight = self.users[place.user], place.cost, place.weight
        lane.running.remove(place)
        assert self.queue.settle(place, cost)
        assert not self.queue.settle(place, cost)
        if cost is not None:
            lane.cost += cost - thought
            if self.set_to.sharing is Sharing.COST:
                self._correct(lane, max(lane.floor, lane.due + (cost - thought) / weight))

    @rule(pick=PICK)
    def give_back(self, pick: int) -> None:
        """It waits again, in its order."""
        place = self._running(pick)
        if place is None:
            return
        lane = self.users[place.user]
        lane.running.remove(place)
        self.given.remove(place)
        assert self.queue.give_back(place)
        lane.waiting = sorted([*lane.waiting, place], key=lambda one: one.number)
        lane.taken -= 1
        lane.cost -= place.cost
        lane.late = True
        due = max(lane.floor, lane.due - self._charge(place) / place.weight)
        if len(lane.waiting) == 1:
            self._move(lane, due)
        self._correct(lane, due)

    def _running(self, pick: int) -> Place[str] | None:
        places = [place for lane in self.users.values() for place in lane.running]
        return places[pick % len(places)] if places else None

    @rule(user=USERS, weight=st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]))
    def weigh(self, user: str, weight: float) -> None:
        """From the next turn on."""
        self.queue.weigh(user, weight)
        self.users[user].weight = weight

    @rule(user=USERS, takes=st.integers(0, 3))
    def block(self, user: str, takes: int) -> None:
        """For a while nothing of it goes; then it joins as one that comes."""
        lane = self.users[user]
        self.queue.block(user)
        lane.blocked = True
        self.put(user, "x", 1.0, 0)
        for _ in range(takes):
            self.take(frozenset("xyz"), None, 0)
        self.positions_are_within_the_queue()
        if takes == 3:
            return
        self.unblock(user)

    @rule(user=USERS)
    def unblock(self, user: str) -> None:
        """Though it may not have been blocked."""
        lane = self.users[user]
        self.queue.unblock(user)
        if lane.blocked and lane.waiting:
            self._join(lane)
        lane.blocked = False

    @invariant()
    def the_same_waits_in_the_same_order(self) -> None:
        """Nothing is lost, and each user's order stands."""
        if not hasattr(self, "queue"):
            return
        for user, lane in self.users.items():
            assert [place for place in self.queue if place.user == user] == lane.waiting
            assert self.queue.waiting(user) == len(lane.waiting)
        assert len(self.queue) == sum(len(lane.waiting) for lane in self.users.values())

    @invariant()
    def the_same_is_shown(self) -> None:
        """Of each user that has been here."""
        for one in self.queue.users() if hasattr(self, "queue") else ():
            lane = self.users[one.user]
            assert (one.waiting, one.running, one.taken) == (len(lane.waiting), len(lane.running), lane.taken)
            assert (one.cost, one.weight, one.blocked) == (lane.cost, lane.weight, lane.blocked)

    @invariant()
    def positions_are_within_the_queue(self) -> None:
        """The head of a lane waits for one of each at most, and nobody for more than wait."""
        lanes = [lane for lane in self.users.values() if lane.waiting and not lane.blocked]
        for lane in lanes:
            positions = [self.queue.position(place) or 0 for place in lane.waiting]
            assert positions[0] == len(lanes)
            assert positions == sorted(positions)
            assert positions[-1] <= sum(len(one.waiting) for one in lanes)


TestAgainstAPlainOne = AgainstAPlainOne.TestCase
TestAgainstAPlainOne.settings = settings(max_examples=150, stateful_step_count=40)
