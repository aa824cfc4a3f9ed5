"""What the fair queue promises, for any history: turns, shares of cost, positions, and how little it looks at."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from mirror.dispatch import FairQueue, Patience, Place, Rules, Sharing, jain
from mirror.dispatch.grouping import REACH

USERS = "abcde"
MODELS = "xyz"
PUT = st.tuples(st.just("put"), st.sampled_from(USERS), st.sampled_from(MODELS))
DROP = st.tuples(st.just("drop"), st.integers(0, 30), st.none())
SETS = st.frozensets(st.sampled_from(MODELS))
BACK = st.tuples(st.sampled_from(["back", "done"]), st.integers(0, 5), st.none())
TAKE = st.tuples(st.just("take"), SETS | st.just(frozenset(MODELS)), SETS)
Step = tuple[str, object, object]
BACKLOG = st.fixed_dictionaries({user: st.text(MODELS, max_size=12) for user in USERS})
FOREVER = 1e9


@dataclass
class Turn:
    """A turn as the test saw it: whose it was, who had work, whose head fitted; ``counts`` unless it was given back."""

    place: Place[str]
    had_work: frozenset[str]
    fitted: frozenset[str]
    counts: bool = True

    @property
    def user(self) -> str:
        """Whose it was."""
        return self.place.user


def turns_of(queue: FairQueue[str], backlog: dict[str, str], steps: Sequence[Step], *, group: bool) -> list[Turn]:
    """Play a history, each item being the model that it wants; return its turns."""
    places: list[Place[str]] = [queue.put(user, model, 0.0) for user, models in backlog.items() for model in models]
    turns: list[Turn] = []
    for kind, what, more in steps:
        if kind == "put":
            places.append(queue.put(str(what), str(more), 0.0))
        elif kind == "drop" and isinstance(what, int) and what < len(places):
            queue.drop(places[what])
        elif kind == "back" and isinstance(what, int) and what < len(turns):
            turns[~what].counts &= not queue.give_back(turns[~what].place)
        elif kind == "done" and isinstance(what, int) and what < len(turns):
            queue.settle(turns[~what].place, float(what))
        elif isinstance(what, frozenset) and isinstance(more, frozenset):
            turns += _turn(queue, what, more, group=group)
    return turns


def _turn(queue: FairQueue[str], here: frozenset[str], loaded: frozenset[str], *, group: bool) -> list[Turn]:
    heads = {place.user: place.item for place in reversed(list(queue))}
    prefers = (lambda model, _: model in loaded) if group else None
    taken = queue.take(lambda model: model if model in here else None, 0.0, prefers)
    fitted = frozenset(user for user, model in heads.items() if model in here)
    assert (taken is None) == (not fitted), "whoever fits is served"
    return [Turn(taken[0], frozenset(heads), fitted)] if taken else []


def assert_nobody_waits_longer(turns: list[Turn], patience: int) -> None:
    """Of any k * (patience + 1) turns each user that fits all the while has one."""
    for start, first in enumerate(turns):
        for user in first.fitted:
            others = set[str]()
            without = 0
            for turn in turns[start:]:
                if turn.user == user or user not in turn.fitted:
                    break
                others |= turn.had_work
                without += turn.counts
                assert without < len(others) * (patience + 1)


@given(BACKLOG, st.lists(PUT | DROP | TAKE | BACK, max_size=120))
def test_of_any_k_turns_each_of_k_users_has_one(backlog: dict[str, str], steps: list[Step]) -> None:
    """Whatever came before: late heads, users that come back, clients that leave."""
    assert_nobody_waits_longer(turns_of(FairQueue(), backlog, steps, group=False), 0)


@given(BACKLOG, st.lists(PUT | DROP | TAKE | TAKE | BACK, max_size=120), st.integers(0, 3))
def test_grouping_makes_nobody_wait_beyond_patience(backlog: dict[str, str], steps: list[Step], patience: int) -> None:
    """Of any k * (patience + 1) turns each has one, whatever is loaded."""
    queue: FairQueue[str] = FairQueue(Rules(patience=Patience(patience, FOREVER)))
    assert_nobody_waits_longer(turns_of(queue, backlog, steps, group=True), patience)


@given(BACKLOG, st.lists(PUT | DROP | TAKE, max_size=60))
def test_without_patience_nothing_is_grouped(backlog: dict[str, str], steps: list[Step]) -> None:
    """Turn by turn the same as if nothing were preferred."""
    grouped: FairQueue[str] = FairQueue(Rules(patience=Patience(0)))

    with_groups = [turn.user for turn in turns_of(grouped, backlog, steps, group=True)]

    assert with_groups == [turn.user for turn in turns_of(FairQueue(), backlog, steps, group=False)]


COSTS = st.integers(0, 1000).map(float)
ANSWERS = st.lists(st.tuples(COSTS, COSTS, st.integers(0, 2)), min_size=1, max_size=120)
Answer = tuple[float, float]


@given(ANSWERS, st.integers(1, 4), st.integers(0, 3), st.sampled_from([0.5, 1.0, 3.0]), st.randoms())
@example([(0.0, 1000.0, 0), (1000.0, 0.0, 0)] * 40, 4, 0, 1.0, Random(1))
def test_shares_of_cost_differ_by_what_runs_at_most(
    answers: list[tuple[float, float, int]], slots: int, patience: int, weight: float, chance: Random
) -> None:
    """Two users that always have work get the same over their weights, but for (slots + patience) of the dearest."""
    queue: FairQueue[Answer] = FairQueue(Rules(sharing=Sharing.COST, patience=Patience(patience, FOREVER)))
    queue.weigh("a", weight)
    weights = {"a": weight, "b": 1.0, "guest": 1.0}
    dearest = max(max(thought, real) for thought, real, _ in answers) / min(weights.values())
    got = dict.fromkeys(weights, 0.0)
    running: list[Place[Answer]] = []
    for thought, real, guests in answers:
        for user in ("a", "b", *["guest"] * guests):
            queue.put(user, (thought, real), 0.0, cost=thought)
        if len(running) == slots:
            done = running.pop(chance.randrange(slots))
            queue.settle(done, done.item[1])
        taken = queue.take(lambda _: True, 0.0, lambda _item, _: chance.random() < 0.5)
        assert taken is not None
        running.append(taken[0])
        got[taken[0].user] += taken[0].item[1] / weights[taken[0].user]

        assert abs(got["a"] - got["b"]) <= (slots + patience) * dearest * (1 + 1e-9)


@given(BACKLOG, st.lists(PUT | DROP | st.just(("take", frozenset(MODELS), frozenset[str]())), max_size=60))
def test_nobody_is_served_later_than_its_position_says(backlog: dict[str, str], steps: list[Step]) -> None:
    """With equal weights, and everything fitting, it is a bound; and one that is not far off: it is never above all."""
    queue: FairQueue[str] = FairQueue()
    turns_of(queue, backlog, steps, group=False)
    said = {place: queue.position(place) for place in queue}
    served = 0
    while taken := queue.take(lambda _: True, 0.0):
        served += 1
        position = said[taken[0]]
        assert position is not None
        assert served <= position <= len(said)

    assert served == len(said)


def test_the_share_of_each_beside_a_greedy_one() -> None:
    """20 users who ask ten times, each when answered, beside one who throws in 300 at once."""
    queue: FairQueue[None] = FairQueue()
    left = {f"user {at}": 9 for at in range(20)}
    for user in ["greedy"] * 300 + list(left):
        queue.put(user, None, 0.0)
    got: Counter[str] = Counter()
    last: str | None = None
    while max(got[user] for user in left) < 10:
        taken = queue.take(lambda _: True, 0.0)
        assert taken is not None
        if last and left.get(last):  # it asks again just after the next turn was given
            left[last] -= 1
            queue.put(last, None, 0.0)
        last = taken[0].user
        got[last] += 1
        queue.settle(taken[0])

    assert jain(got.values()) >= 0.99
    assert got["greedy"] <= 11


def test_a_turn_looks_at_one_head_when_that_fits() -> None:
    """Ten thousand users wait: that must not make each turn slow."""
    asked = 0

    def fits(_: int) -> bool:
        nonlocal asked
        asked += 1
        return True

    queue: FairQueue[int] = FairQueue()
    places = [queue.put(f"user {at}", at, 0.0) for at in range(10_000)]
    for at in range(0, 10_000, 2):
        assert queue.drop(places[at])
    for at in range(1, 10_000, 2):
        taken = queue.take(fits, 0.0)
        assert taken is not None
        assert taken[0].item == at
        queue.settle(taken[0])

    assert asked == 5000
    assert len(queue) == 0


def test_grouping_looks_at_so_many_lanes_and_no_more() -> None:
    """Where nothing of what waits is loaded, finding that out has a bound too."""
    asked = 0

    def prefers(_: int, __: bool) -> bool:
        nonlocal asked
        asked += 1
        return False

    queue: FairQueue[int] = FairQueue()
    for at in range(10_000):
        queue.put(f"user {at}", at, 0.0)
    for at in range(100):
        taken = queue.take(lambda _: True, 0.0, prefers)
        assert taken is not None
        assert taken[0].item == at

    assert asked <= 100 * (REACH + 1)
