"""The fair queue by examples: turns, lanes, bounds, blocks, weights, costs, and what is shown of them."""

import pytest

from mirror.dispatch import FairQueue, Place, Rules, Sharing
from mirror.dispatch.fair import Usage
from mirror.errors import TooManyWaiting, UserBlocked


def anywhere(_item: str) -> str:
    """A backend that has everything."""
    return "backend"


def queue_of(waiting: str, rules: Rules | None = None) -> FairQueue[str]:
    """A queue with a request for each letter, of the user of that name."""
    queue: FairQueue[str] = FairQueue(rules)
    for at, user in enumerate(waiting):
        queue.put(user, f"{user}{at}", float(at))
    return queue


def served(queue: FairQueue[str], turns: int = 1000) -> str:
    """Take so often, each one done before the next begins, and return whose the turns were."""
    users = ""
    for _ in range(turns):
        taken = queue.take(anywhere, 0.0)
        if taken is None:
            break
        users += taken[0].user
        queue.settle(taken[0])
    return users


def usage(queue: FairQueue[str], user: str) -> Usage:
    """What is shown of one user."""
    return next(one for one in queue.users() if one.user == user)


def test_users_are_served_in_turn_and_each_in_its_order() -> None:
    """One who throws in many at once waits behind them, and nobody else does."""
    queue = queue_of("aaaaabbc")

    assert [place.item for place in queue] == ["a0", "a1", "a2", "a3", "a4", "b5", "b6", "c7"]
    assert served(queue) == "abcabaaa"
    assert queue.take(anywhere, 0.0) is None


def test_who_comes_later_has_no_turns_saved_up() -> None:
    """Having been away is no claim to what others had meanwhile."""
    queue = queue_of("b" + "a" * 50)
    assert served(queue, 41) == "b" + "a" * 40
    for at in range(5):
        queue.put("b", f"b{at}", 0.0)

    assert served(queue, 10) == "bababababa"


def test_who_asks_again_only_when_answered_gets_as_much_as_who_asks_at_once() -> None:
    """The next request comes just after the backend has been given to somebody else, and that must not cost a turn."""
    queue = queue_of("a" + "g" * 100)
    users = ""
    for _ in range(40):
        turn = served(queue, 1)
        if users.endswith("a"):
            queue.put("a", "a", 0.0)  # its client has read the answer before, while this turn was given away
        users += turn

    assert users.count("a") == 20


def test_a_head_that_nothing_can_run_is_in_nobodys_way() -> None:
    """Its lane keeps its claim, and has one turn for it, not all that it could not use."""
    queue = queue_of("a" * 20 + "b" * 20)

    def only_b(item: str) -> str | None:
        return "backend" if item.startswith("b") else None

    for _ in range(10):
        taken = queue.take(only_b, 0.0)
        assert taken is not None
        assert taken[0].user == "b"

    assert queue.take(lambda _: None, 0.0) is None
    assert served(queue, 7) == "abababa"


def test_a_head_keeps_its_lane_in_order() -> None:
    """Only heads are looked at: a user's requests run in the order in which they came."""
    queue = queue_of("aab")
    asked = []

    def not_the_first(item: str) -> str | None:
        asked.append(item)
        return None if item == "a0" else "backend"

    taken = queue.take(not_the_first, 0.0)

    assert taken is not None
    assert taken[0].item == "b2"
    assert asked == ["a0", "b2"]


def test_who_leaves_is_gone_at_once() -> None:
    """From the head, the middle or the end; and only once."""
    queue: FairQueue[str] = FairQueue()
    places = [queue.put("a", f"a{at}", 0.0) for at in range(4)]

    assert [queue.drop(places[at]) for at in (0, 2, 2)] == [True, True, False]
    assert (len(queue), queue.waiting("a"), queue.waiting("nobody")) == (2, 2, 0)
    assert [place.item for place in queue] == ["a1", "a3"]
    taken = queue.take(anywhere, 0.0)
    assert taken is not None
    assert taken[0] is places[1]
    assert not queue.drop(places[1])
    assert queue.drop(places[3])
    assert queue.take(anywhere, 0.0) is None


def test_a_full_lane_is_the_users_own_affair() -> None:
    """And a full queue everybody's; what is refused leaves no trace."""
    queue = queue_of("aaabb", Rules(lane=3, total=5))
    with pytest.raises(TooManyWaiting) as own:
        queue.put("a", "more", 0.0)
    with pytest.raises(TooManyWaiting) as all_of_them:
        queue.put("stranger", "more", 0.0)

    assert (own.value.own, own.value.bound, own.value.user, own.value.permanent) == (True, 3, "a", False)
    assert str(own.value) == "3 requests of this user are waiting already"
    assert (all_of_them.value.own, str(all_of_them.value)) == (False, "5 requests are waiting already")
    assert [one.user for one in queue.users()] == ["a", "b"]
    assert served(queue) == "ababa"


def test_a_blocked_user_is_not_served_and_keeps_its_place() -> None:
    """What waits is kept, what comes is refused, what runs goes on."""
    queue = queue_of("aabb")
    running = queue.take(anywhere, 0.0)
    assert running is not None
    queue.block("a")
    queue.block("a")
    with pytest.raises(UserBlocked) as refused:
        queue.put("a", "more", 0.0)

    assert (refused.value.user, refused.value.permanent) == ("a", True)
    assert served(queue) == "bb"
    assert (len(queue), queue.waiting("a")) == (1, 1)
    assert queue.settle(running[0])
    queue.unblock("a")
    queue.unblock("a")
    queue.put("b", "b", 0.0)
    queue.put("a", "a", 0.0)
    assert served(queue) == "aba"


def test_the_blocked_make_no_position_worse_and_have_none() -> None:
    """They will not be served before anybody; who leaves them is gone as well."""
    queue: FairQueue[str] = FairQueue()
    first, second = (queue.put("a", "a", 0.0) for _ in range(2))
    mine = queue.put("b", "b", 0.0)
    assert queue.position(mine) == 2
    queue.block("a")
    assert (queue.position(first), queue.position(mine)) == (None, 1)
    assert queue.drop(second)
    queue.unblock("a")
    assert (queue.position(first), queue.position(second), queue.position(mine)) == (2, None, 2)


def test_somebody_can_be_blocked_before_having_been_here() -> None:
    """And is shown, so that it is not forgotten."""
    queue: FairQueue[str] = FairQueue()
    queue.block("a")
    with pytest.raises(UserBlocked):
        queue.put("a", "a", 0.0)

    assert queue.users() == [Usage("a", 0, 0, 0, 0.0, 1.0, blocked=True)]
    queue.unblock("a")
    assert queue.users() == []


def test_weights_are_shares_and_may_be_changed_at_any_time() -> None:
    """One of weight 3 has three turns where others have one."""
    queue = queue_of("a" * 100 + "b" * 100)
    queue.weigh("a", 3)
    first = served(queue, 40)
    queue.weigh("a", 0.5)
    second = served(queue, 30)

    assert (first.count("a"), first.count("b")) == (30, 10)
    assert second.count("a") in (10, 11)
    assert usage(queue, "a").weight == 0.5


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_is_above_nothing(weight: float) -> None:
    """With others no order would be left."""
    with pytest.raises(ValueError, match="weight"):
        FairQueue[str]().weigh("a", weight)


@pytest.mark.parametrize("cost", [-1.0, float("inf"), float("nan")])
def test_a_cost_is_a_number_of_something(cost: float) -> None:
    """A backend that says otherwise must not stop the queue; what was refused changes nothing."""
    queue = queue_of("a", Rules(sharing=Sharing.COST))
    taken = queue.take(anywhere, 0.0)
    assert taken is not None
    with pytest.raises(ValueError, match="cost"):
        queue.put("a", "more", 0.0, cost=cost)
    with pytest.raises(ValueError, match="cost"):
        queue.settle(taken[0], cost)

    assert len(queue) == 0
    assert queue.settle(taken[0], 2.0)


def test_by_cost_long_answers_count_for_what_they_are() -> None:
    """Of a user whose answers are four times as long a quarter as many are served."""
    queue: FairQueue[str] = FairQueue(Rules(sharing=Sharing.COST))
    for _ in range(100):
        queue.put("long", "long", 0.0, cost=400.0)
        queue.put("short", "short", 0.0, cost=100.0)
    users = [taken[0].user for taken in (queue.take(anywhere, 0.0) for _ in range(100)) if taken]

    assert users.count("long") == 20


def test_what_an_answer_did_cost_is_charged_when_it_is_known() -> None:
    """Nobody knows before how long an answer will be, so all are thought to cost the same at first."""
    queue: FairQueue[str] = FairQueue(Rules(sharing=Sharing.COST))
    users = ""
    for _ in range(100):
        queue.put("long", "400", 0.0, cost=100.0)
        queue.put("short", "100", 0.0, cost=250.0)
    for _ in range(100):
        taken = queue.take(anywhere, 0.0)
        assert taken is not None
        users += taken[0].user[0]
        assert queue.settle(taken[0], float(taken[0].item))

    assert users.count("l") == 20
    assert (usage(queue, "long").cost, usage(queue, "short").cost) == (8000.0, 8000.0)


def test_by_turns_costs_are_counted_and_change_nothing() -> None:
    """They are shown to people; turns are shared."""
    queue = queue_of("aaabbb")
    users = ""
    while taken := queue.take(anywhere, 0.0):
        users += taken[0].user
        queue.settle(taken[0], 500.0 if taken[0].user == "a" else 1.0)

    assert users == "ababab"
    assert (usage(queue, "a").cost, usage(queue, "b").cost) == (1500.0, 3.0)


def test_by_turns_the_end_of_a_request_moves_nobody() -> None:
    """Whose turn comes next was settled when the last one was given."""
    queue = queue_of("aabb")
    taken = queue.take(anywhere, 0.0)
    assert taken is not None
    assert queue.take(anywhere, 0.0) is not None
    queue.settle(taken[0], 500.0)

    assert served(queue) == "ab"


def test_a_refund_is_no_credit_for_time_away() -> None:
    """One whose request was thought dear comes back when others are far beyond that: it begins where they are."""
    queue: FairQueue[str] = FairQueue(Rules(sharing=Sharing.COST))
    dear = queue.put("a", "a", 0.0, cost=1000.0)
    assert queue.take(anywhere, 0.0)
    for _ in range(200):
        queue.put("b", "b", 0.0, cost=100.0)
    served(queue, 100)
    for _ in range(20):
        queue.put("a", "a", 0.0, cost=100.0)
    queue.settle(dear, 0.0)

    assert served(queue, 6) in ("ababab", "bababa")


def test_a_request_is_settled_once_and_only_after_it_was_taken() -> None:
    """Whoever ends it twice must not be charged twice."""
    queue = queue_of("a", Rules(sharing=Sharing.COST))
    place = next(iter(queue))
    assert not queue.settle(place)
    assert queue.take(anywhere, 0.0) == (place, "backend")
    assert usage(queue, "a") == Usage("a", 0, 1, 1, 1.0, 1.0, blocked=False)
    assert queue.settle(place, 5.0)
    assert not queue.settle(place, 7.0)
    assert usage(queue, "a") == Usage("a", 0, 0, 1, 5.0, 1.0, blocked=False)
    assert queue.position(place) is None


def test_what_could_not_run_waits_again_before_what_came_later() -> None:
    """Its backend died before the first byte: it goes to the next one, and neither it nor its user pays for that."""
    queue = queue_of("aaabb", Rules(lane=3))
    first, second, third = (queue.take(anywhere, 0.0) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    queue.put("a", "more", 0.0)
    for place in (first[0], third[0], second[0]):
        assert queue.give_back(place)
        assert not queue.give_back(place)
        assert not queue.settle(place)

    assert usage(queue, "a") == Usage("a", 4, 0, 0, 0.0, 1.0, blocked=False)
    assert [place.item for place in queue] == ["a0", "a1", "a2", "more", "b3", "b4"]
    assert sorted(queue.position(place) or 0 for place in queue) == [2, 2, 4, 4, 5, 6]
    assert served(queue) == "ababaa"


def test_what_is_given_back_late_goes_first_and_once() -> None:
    """Its user missed the turns that others had meanwhile, and does not get them all at once."""
    queue = queue_of("a" * 20 + "b" * 100)
    dead = queue.take(anywhere, 0.0)
    assert dead is not None
    queue.block("a")
    served(queue, 50)
    queue.unblock("a")
    assert queue.give_back(dead[0])

    assert served(queue, 6) == "ababab"


def test_what_is_given_back_to_a_blocked_user_waits() -> None:
    """Until the user is unblocked, or the client leaves."""
    queue = queue_of("a")
    taken = queue.take(anywhere, 0.0)
    assert taken is not None
    queue.block("a")
    assert queue.give_back(taken[0])
    assert (queue.take(anywhere, 0.0), queue.position(taken[0]), len(queue)) == (None, None, 1)
    queue.unblock("a")
    assert queue.position(taken[0]) == 1
    assert queue.drop(taken[0])


def test_names_that_come_and_go_are_forgotten() -> None:
    """Anybody can make up names; who waits or has something running is known all the while."""
    queue: FairQueue[str] = FairQueue(Rules(idle=3))
    running = queue.put("runs", "runs", 0.0)
    assert queue.take(anywhere, 0.0) == (running, "backend")
    waiting = queue.put("waits", "waits", 0.0)
    queue.block("waits")
    for at in range(100):
        place = queue.put(f"user {at}", "x", 0.0)
        assert queue.drop(place) if at % 2 else served(queue) == place.user

    assert [one.user for one in queue.users()] == ["runs", "waits", "user 97", "user 98", "user 99"]
    queue.put("user 97", "again", 0.0)
    assert queue.settle(running)
    assert queue.drop(waiting)
    assert {one.user for one in queue.users()} == {"runs", "waits", "user 97", "user 99"}


def test_positions_count_down() -> None:
    """A lane has as many turns before a request as that request's own has."""
    queue: FairQueue[str] = FairQueue()
    many = [queue.put("g", "g", 0.0) for _ in range(5)]
    one = queue.put("a", "a", 0.0)
    two = [queue.put("b", "b", 0.0) for _ in range(2)]

    def positions() -> list[int | None]:
        return [queue.position(place) for place in (*many, one, *two)]

    assert positions() == [3, 5, 6, 7, 8, 3, 3, 5]
    served(queue, 1)
    assert positions() == [None, 3, 5, 6, 7, 3, 3, 5]
    served(queue, 6)
    assert positions() == [None, None, None, None, 1, None, None, None]


def test_one_who_left_from_the_middle_counts_until_its_turn() -> None:
    """The position is a bound, and never more than all that wait."""
    queue: FairQueue[str] = FairQueue()
    places: list[Place[str]] = [queue.put("a", "a", 0.0) for _ in range(5)]
    queue.drop(places[1])
    assert queue.position(places[2]) == 3
    assert queue.position(places[4]) == 4
    queue.drop(places[0])
    assert queue.position(places[2]) == 1
