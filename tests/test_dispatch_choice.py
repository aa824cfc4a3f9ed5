"""Which backend comes first: by table, and for any backends."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.dispatch import Candidate, choose, jain, ranked

PLAIN = Candidate(id="m", active=1, slots=4, cpu=0.5, failures=1)

CANDIDATES = st.builds(
    Candidate,
    id=st.text("abc", min_size=1, max_size=3),
    online=st.sampled_from([True, True, True, False]),
    has=st.sampled_from([True, True, True, False]),
    allowed=st.sampled_from([True, True, True, False]),
    draining=st.sampled_from([False, False, False, True]),
    active=st.integers(0, 3),
    slots=st.integers(0, 4),
    cpu=st.none() | st.sampled_from([0.0, 0.25, 1.0]),
    failures=st.integers(0, 2),
    loaded=st.booleans(),
    sticky=st.booleans(),
    weight=st.sampled_from([0.5, 1.0, 2.0]),
)
SOME = st.lists(CANDIDATES, max_size=8, unique_by=lambda one: one.id)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"active": 0}, {"cpu": 0.0, "failures": 0, "loaded": True, "sticky": True}),
        ({"cpu": 0.4}, {"failures": 0, "loaded": True, "sticky": True}),
        ({"cpu": 0.99}, {"cpu": None, "failures": 0, "loaded": True}),
        ({"failures": 0}, {"loaded": True, "sticky": True}),
        ({"loaded": True}, {"sticky": True}),
        ({"sticky": True}, {}),
        ({"active": 2, "weight": 2.0}, {"id": "a"}),
        ({"active": 2, "weight": 3.0}, {"cpu": 0.0, "loaded": True}),
        ({"active": 0, "weight": 2.0}, {"active": 0}),
        ({"id": "a"}, {"id": "b"}),
    ],
)
def test_the_order_of_preference(better: dict[str, object], worse: dict[str, object]) -> None:
    """The fewest active jobs, the lowest CPU, the fewest failures; then ours: loaded, sticky, weight; then the id."""
    first = replace(PLAIN, **better)  # type: ignore[arg-type]  # whatever the table says
    second = replace(PLAIN, **worse)  # type: ignore[arg-type]  # whatever the table says

    assert ranked([second, first]) == [first, second]
    assert choose([second, first]) == first


@pytest.mark.parametrize(
    "reason", [{"online": False}, {"has": False}, {"allowed": False}, {"draining": True}, {"active": 4}, {"slots": 0}]
)
def test_what_may_not_is_no_choice(reason: dict[str, object]) -> None:
    """However well it looks besides."""
    none = replace(PLAIN, **reason)  # type: ignore[arg-type]  # whatever the table says

    assert not none.may
    assert (ranked([none]), choose([none])) == ([], None)
    assert choose([none, PLAIN]) == PLAIN


@pytest.mark.parametrize(
    "numbers",
    [{"cpu": float("nan")}, {"cpu": 1.5}, {"weight": 0.0}, {"weight": float("inf")}, {"active": -1}, {"slots": -1}],
)
def test_numbers_that_put_nothing_in_order_are_refused(numbers: dict[str, object]) -> None:
    """A node that says nonsense of itself must not upset the choice among the others."""
    with pytest.raises(ValueError, match="not the numbers"):
        replace(PLAIN, **numbers)  # type: ignore[arg-type]  # whatever the table says


@given(SOME, st.randoms())
def test_one_order_whatever_order_they_come_in(some: list[Candidate], chance: Random) -> None:
    """Two hubs, or one at two times, choose alike; and the choice is the first of the ranked."""
    mixed = list(some)
    chance.shuffle(mixed)
    order = ranked(some)

    assert ranked(mixed) == order
    assert choose(mixed) == (order[0] if order else None)
    assert set(order) == {one for one in some if one.may}
    assert not any(one.draining or one.active >= one.slots for one in order)
    assert all(one.online and one.has and one.allowed for one in order)
    assert all(ranked([b, a]) == [a, b] for at, a in enumerate(order) for b in order[at + 1 :])


@given(SOME)
def test_the_seeds_order_stands_over_ours(some: list[Candidate]) -> None:
    """Of equal weight, none comes before one with fewer active jobs, a lower CPU or fewer failures, in that order."""
    order = ranked(replace(one, weight=1.0) for one in some)
    seeds = [(one.active, 1.0 if one.cpu is None else one.cpu, one.failures) for one in order]

    assert seeds == sorted(seeds)


def test_jain_by_examples() -> None:
    """The figures of the literature, and of the yardsticks."""
    assert jain([]) == jain([0, 0]) == jain([5]) == jain([3, 3, 3]) == 1.0
    assert jain([1, 0, 0, 0]) == 0.25
    assert round(jain([9] * 20 + [11]), 3) == 0.998
    assert round(jain([9] * 20 + [286]), 2) == 0.12
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="shares"):
            jain([1.0, wrong])


@given(st.lists(st.floats(0, 1e308), min_size=1, max_size=30), st.sampled_from([1e-3, 0.5, 1.0]))
def test_jain_is_between_one_of_all_and_all(shares: list[float], scale: float) -> None:
    """It does not depend on the unit, and very large and small shares do no harm."""
    index = jain(shares)

    assert 1 / len(shares) - 1e-9 <= index <= 1 + 1e-9
    if max(shares) > 1e-290:
        assert abs(jain([share * scale for share in shares]) - index) < 1e-9
