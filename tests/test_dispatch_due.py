"""The order of what is due, against a sorted list, and how much it costs to keep."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.dispatch.due import DueOrder

STEPS = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.none() | st.integers(0, 4)), max_size=80)


class Counted(float):
    """A number that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float.__lt__(self, other)

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return float.__eq__(self, other)

    __hash__ = float.__hash__


@given(STEPS)
def test_it_is_walked_as_a_sorted_list_would_be(steps: list[tuple[str, int | None]]) -> None:
    """Put again moves, None removes, ties stay in the order in which they were put."""
    order: DueOrder[str] = DueOrder()
    kept: dict[str, int] = {}
    for thing, due in steps:
        kept.pop(thing, None)
        if due is None:
            order.remove(thing)
        else:
            order.put(thing, due)
            kept[thing] = due

        assert list(order) == sorted(kept, key=kept.__getitem__)
        assert len(order) == len(kept)
        assert all((thing in order) == (thing in kept) for thing in "abcdefghij")


def test_a_walk_that_ends_early_costs_what_it_has_come_to() -> None:
    """Ten thousand users wait, and mostly the first of them fits."""
    order: DueOrder[int] = DueOrder()
    for user in range(10_000):
        order.put(user, Counted(user))
    Counted.comparisons = 0
    walk = iter(order)

    assert [next(walk) for _ in range(10)] == list(range(10))
    assert Counted.comparisons < 200


def test_moving_costs_the_logarithm_of_how_many_there_are() -> None:
    """A turn moves one lane; what its old place leaves behind is tidied away in time."""
    users, turns = 10_000, 30_000
    order: DueOrder[int] = DueOrder()
    for user in range(users):
        order.put(user, Counted(0))
    Counted.comparisons = 0
    for turn in range(turns):
        user = next(iter(order))
        assert user == turn % users
        order.put(user, Counted(turn // users + 1))

    assert Counted.comparisons < turns * 60


def test_what_comes_and_goes_leaves_nothing_behind() -> None:
    """Clients that give up while nothing runs must not fill the memory."""
    order: DueOrder[int] = DueOrder()
    order.put(-1, 0)
    for thing in range(10_000):
        order.put(thing, 1)
        order.remove(thing)

    assert list(order) == [-1]
    assert len(order._heap) < 32  # what is left behind is seen nowhere else
