"""Requests for a loaded model may go first, for so long and so often."""

from mirror.dispatch import FairQueue, Patience, Rules


class Backend:
    """One slot, and memory for one model; counts how often that is swapped."""

    def __init__(self, patience: Patience) -> None:
        self.queue: FairQueue[str] = FairQueue(Rules(patience=patience))
        self.loaded = ""
        self.swaps = 0

    def turn(self, now: float = 0.0) -> str:
        """Run one request and return whose it was."""
        taken = self.queue.take(lambda _: self, now, lambda model, backend: model == backend.loaded)
        assert taken is not None
        place, _ = taken
        self.swaps += place.item != self.loaded
        self.loaded = place.item
        self.queue.settle(place)
        return place.user

    def turns(self, count: int) -> str:
        """Whose so many turns were."""
        return "".join(self.turn() for _ in range(count))


def backend(patience: Patience, **models: str) -> Backend:
    """A backend with a queue of users who want one model each, a hundred times."""
    made = Backend(patience)
    for user, model in models.items():
        for _ in range(100):
            made.queue.put(user, model, 0.0)
    return made


def test_turns_come_in_groups_and_shares_stay_even() -> None:
    """Each swap costs seconds; who went before its turn waits until the others have had theirs."""
    grouping = backend(Patience(3, 1e9), a="x", b="y")
    plain = backend(Patience(0), a="x", b="y")
    users = grouping.turns(80)

    assert plain.turns(80) == "ab" * 40
    assert plain.swaps == 80
    assert abs(users.count("a") - users.count("b")) <= 4
    assert "aaaa" in users
    assert "bbbb" in users
    assert grouping.swaps <= 80 // 4 + 1


def test_what_is_gained_by_grouping_is_repaid() -> None:
    """Though the other model is never kept in memory, its user gets as many turns in the end."""
    queue: FairQueue[str] = FairQueue(Rules(patience=Patience(3, 1e9)))
    users = ""
    for _ in range(60):
        for user, model in ("a", "x"), ("b", "y"):
            queue.put(user, model, 0.0)
        taken = queue.take(lambda _: True, 0.0, lambda model, _: model == "x")
        assert taken is not None
        users += taken[0].user
        assert abs(users.count("a") - users.count("b")) <= 4

    assert users.startswith("aaaa")


def test_patience_is_counted_in_turns() -> None:
    """A head that is due lets others pass so often, and then nobody."""
    some = backend(Patience(2, 1e9), a="x", b="y", c="x")
    assert some.turns(4) == "acab"  # c by its turn's place, a before its turn, and then b has waited enough


def test_patience_is_bounded_in_time() -> None:
    """Long answers are few turns, and still a long wait; it counts from when the head was first passed over."""
    some = backend(Patience(50, 10.0), a="x", b="y")

    assert [some.turn(now) for now in (500.0, 501.0, 505.0, 510.9)] == ["a"] * 4
    assert some.turn(511.0) == "b"
    assert some.turn(520.0) == "b"


def test_one_that_has_spent_its_patience_holds_up_those_behind_it() -> None:
    """Though another is due before it, and would let them pass."""
    queue: FairQueue[str] = FairQueue(Rules(patience=Patience(1, 1e9)))
    for user, model in ("a", "w"), ("b", "y"), ("c", "x"), ("d", "x"):
        queue.put(user, model, 0.0)

    def turn(*, here: str) -> str:
        taken = queue.take(lambda model: model if model in here else None, 0.0, lambda model, _: model == "x")
        return taken[0].user if taken else "nobody"

    assert turn(here="xy") == "c", "before b, which does not let d pass as well"
    assert turn(here="wxy") == "a"
    assert turn(here="wxy") == "b"
    assert turn(here="wxy") == "d"


def test_what_prefers_is_asked_of_what_fits_only() -> None:
    """A loaded model helps nobody on a backend whose slots are taken."""
    queue: FairQueue[str] = FairQueue()
    for model in ("x", "y", "z"):
        queue.put(model, model, 0.0)
    asked = []

    def prefers(model: str, where: int) -> bool:
        asked.append((model, where))
        return model == "y"

    taken = queue.take(lambda model: None if model == "y" else 7, 0.0, prefers)

    assert taken is not None
    assert (taken[0].item, taken[1]) == ("x", 7)
    assert asked == [("x", 7), ("z", 7)]
