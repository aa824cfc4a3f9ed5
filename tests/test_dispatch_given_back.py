"""A request that was taken and could not be served waits again, before all others of its user."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.dispatch import FairQueue, Rules, Sharing


def anything(item: str) -> str:
    """Every item fits."""
    return item


def test_it_goes_before_what_came_later_and_costs_its_user_nothing() -> None:
    """Two users in turn; what is given back does not count as a turn had."""
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2"):
        queue.put("ann", item, 0.0)
    for item in ("b1", "b2"):
        queue.put("bob", item, 0.0)
    taken = queue.take(anything, 0.0)
    assert taken is not None
    assert taken[1] == "a1"
    assert queue.give_back(taken[0])
    assert not queue.give_back(taken[0])
    assert (len(queue), queue.position(taken[0])) == (4, 2)
    order = []
    while (found := queue.take(anything, 0.0)) is not None:
        order.append(found[1])
        queue.settle(found[0])
    assert sorted(order) == ["a1", "a2", "b1", "b2"]
    assert order.index("a1") < order.index("a2")
    assert {one.user: one.taken for one in queue.users()} == {"ann": 2, "bob": 2}


def test_of_a_blocked_user_it_is_kept() -> None:
    """And served once that one is let in again."""
    queue: FairQueue[str] = FairQueue()
    queue.put("ann", "a1", 0.0)
    taken = queue.take(anything, 0.0)
    assert taken is not None
    queue.block("ann")
    assert queue.give_back(taken[0])
    assert queue.take(anything, 0.0) is None
    queue.unblock("ann")
    again = queue.take(anything, 0.0)
    assert again is not None
    assert again[1] == "a1"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "take", "back", "settle", "drop"])), max_size=80
    ),
    st.sampled_from(Sharing),
)
def test_whatever_is_given_back_nothing_is_lost_or_doubled(steps: list[tuple[str, str]], sharing: Sharing) -> None:
    """Each request is waiting, running or over, and in a lane the first that came goes first."""
    queue: FairQueue[int] = FairQueue(Rules(sharing=sharing))
    waiting, running, number = {}, {}, 0
    for user, what in steps:
        match what:
            case "put":
                number += 1
                waiting[number] = queue.put(user, number, 0.0, cost=float(number % 5))
            case "take" if (found := queue.take(lambda item: item + 1, 0.0)) is not None:
                place = found[0]
                assert place.item == min(item for item, one in waiting.items() if one.user == place.user)
                running[place.item] = waiting.pop(place.item)
            case "back" if running:
                item, place = running.popitem()
                assert queue.give_back(place)
                waiting[item] = place
            case "settle" if running:
                assert queue.settle(running.popitem()[1], 2.0)
            case "drop" if waiting:
                assert queue.drop(waiting.popitem()[1])
    assert len(queue) == len(waiting)
    assert {place.item for place in queue} == set(waiting)
    assert sum(one.running for one in queue.users()) == len(running)
