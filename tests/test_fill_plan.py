"""Which range is fetched next, for any blob, any readers and any order of events."""

from itertools import count, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from mirror.fill.plan import FIRST_UNIT, LARGEST_UNIT, LAST_UNIT, SMALLEST_UNIT, FillPlan
from mirror.values import ByteRange, RangeSet

SIZE = 40 << 20
SPEEDS = st.none() | st.floats(1, 1e10)


def plan(size: int = SIZE, *here: ByteRange) -> FillPlan:
    """A plan for a blob of which ``here`` has arrived."""
    return FillPlan(size, RangeSet(here))


def test_without_readers_the_first_gap_comes_first() -> None:
    """The hash follows the front, and a reader of everything follows it too."""
    some = plan(SIZE, ByteRange(0, 100), ByteRange(300, 400))

    assert some.take(4, None) == ByteRange(100, 300)
    assert some.take(4, None) == ByteRange(400, 400 + FIRST_UNIT)


def test_where_a_reader_waits_comes_before_what_is_next() -> None:
    """Ollama gives a part up that gets no byte."""
    some = plan()
    some.wait("a", 20 << 20, 1.0)

    assert some.take(4, None) == ByteRange(20 << 20, (20 << 20) + FIRST_UNIT)
    assert some.take(4, None) == ByteRange(0, FIRST_UNIT)


def test_who_has_waited_longest_is_first() -> None:
    """Nobody starves, however many come after."""
    some = plan()
    for reader, (offset, since) in enumerate([(30 << 20, 3.0), (10 << 20, 1.0), (20 << 20, 2.0)]):
        some.wait(reader, offset, since)

    taken = [some.take(4, None) for _ in range(3)]

    assert [unit.start >> 20 for unit in taken if unit] == [10, 20, 30]


def test_two_who_wait_for_one_byte_cost_one_range() -> None:
    """Upstream bytes are fetched once."""
    some = plan()
    some.wait("a", 5 << 20, 1.0)
    some.wait("b", 5 << 20, 2.0)

    starts = [unit.start for unit in (some.take(4, None), some.take(4, None)) if unit]

    assert starts == [5 << 20, 0]


def test_reader_who_is_served_or_beyond_the_end_counts_no_more() -> None:
    """Priority is for those who wait now."""
    some = plan()
    some.wait("a", 20 << 20, 1.0)
    some.wait("b", SIZE, 0.5)
    some.served("a")

    assert some.waited_for(ByteRange(0, SIZE - 1)) == []
    assert some.take(4, None) == ByteRange(0, FIRST_UNIT)


def test_the_bytes_that_somebody_waits_for_are_known() -> None:
    """A connection that has far to go to one is relieved of the rest."""
    some = plan()
    some.wait("a", 700, 1.0)
    some.wait("b", 500, 2.0)

    assert some.waited_for(ByteRange(0, 1000)) == [500, 700]
    assert some.waited_for(ByteRange(600, 1000)) == [700]
    assert some.waited_for(ByteRange(701, 1000)) == []


def test_an_upstream_without_ranges_gives_the_rest_once() -> None:
    """Its body is read from the first gap on, by one connection only."""
    some = plan(SIZE, ByteRange(0, 100), ByteRange(300, 400))

    assert some.take_rest() == ByteRange(100, SIZE)
    assert some.take_rest() is None
    assert not some.open
    some.give_back(ByteRange(100, SIZE))
    assert some.take_rest() == ByteRange(100, SIZE)


def test_nothing_is_left_of_a_complete_or_empty_blob() -> None:
    """A resumed blob may need no more than its proof."""
    for whole in (plan(10, ByteRange(0, 10)), plan(0)):
        assert whole.complete
        assert not whole.open
        assert whole.take(1, None) is None
        assert whole.take_rest() is None


@given(st.integers(1, 1 << 40), st.integers(1, 64), SPEEDS, st.integers(0, 200))
def test_units_are_bounded(size: int, connections: int, speed: float | None, readers: int) -> None:
    """Too small wastes round trips, too large keeps others waiting."""
    some = plan(size)
    for reader in range(readers):
        some.wait(reader, reader % size, float(reader))
    some.wait("last", size - 1, -1.0)
    some.take(connections, speed)
    some.served("last")

    unit = some.take(connections, speed)

    if unit is not None and unit.stop not in (size, size - 1):
        assert SMALLEST_UNIT <= len(unit) <= LARGEST_UNIT


@given(st.integers(1, 1 << 34), st.integers(1, 64), st.floats(1e6, 1e10))
def test_towards_the_end_units_shrink_so_that_all_finish_together(size: int, connections: int, speed: float) -> None:
    """Fifteen idle connections and one with 64 MiB to go would waste the line."""
    some, lengths = plan(size), []
    while unit := some.take(connections, speed):
        lengths.append(len(unit))
        some.arrived(unit)

    assert sum(lengths) == size
    assert all(after <= before for before, after in pairwise(lengths))
    assert lengths[-1] <= LAST_UNIT


class Filling(RuleBasedStateMachine):
    """Connections take, bring in pieces, stop short and are shortened; readers come and go; in any order."""

    units = Bundle("units")

    def __init__(self) -> None:
        super().__init__()
        self.size = 3 << 20
        self.plan = plan(self.size)
        self.came = RangeSet()
        self.out: list[ByteRange] = []
        self.clock = count()

    def arrive(self, span: ByteRange) -> None:
        """Bytes are here, which were not before."""
        assert self.came.add(span) == len(span), "a byte came twice"
        self.plan.arrived(span)

    @rule(target=units, speed=SPEEDS, connections=st.integers(1, 16))
    def take(self, speed: float | None, connections: int) -> tuple[ByteRange, int] | None:
        """A connection asks for work."""
        unit = self.plan.take(connections, speed)
        if unit is None:
            return None
        assert unit
        assert unit.stop <= self.size
        for other in self.out:
            assert unit.stop <= other.start or other.stop <= unit.start, "two connections fetch the same byte"
        self.out.append(unit)
        return unit, unit.start

    @rule(target=units, unit=consumes(units), kib=st.integers(1, 512))
    def bring(self, unit: tuple[ByteRange, int] | None, kib: int) -> tuple[ByteRange, int] | None:
        """Some of its bytes arrive."""
        if unit is None:
            return None
        span, at = unit
        stop = min(span.stop, at + (kib << 10))
        self.arrive(ByteRange(at, stop))
        if stop < span.stop:
            return span, stop
        self.out.remove(span)
        self.plan.give_back(span)
        return None

    @rule(unit=consumes(units))
    def fail(self, unit: tuple[ByteRange, int] | None) -> None:
        """The connection breaks; what came stays."""
        if unit is not None:
            self.out.remove(unit[0])
            self.plan.give_back(unit[0])

    @rule(target=units, unit=consumes(units), share=st.floats(0.1, 0.9))
    def shorten(self, unit: tuple[ByteRange, int] | None, share: float) -> tuple[ByteRange, int] | None:
        """It is relieved of its end."""
        if unit is None:
            return None
        span, at = unit
        stop = (at + int((span.stop - at) * share) >> 10) << 10
        if not at < stop < span.stop:
            return unit
        self.out[self.out.index(span)] = ByteRange(span.start, stop)
        self.plan.give_back(ByteRange(stop, span.stop))
        return ByteRange(span.start, stop), at

    @rule(reader=st.integers(0, 3), kib=st.integers(0, 3071))
    def wait(self, reader: int, kib: int) -> None:
        """A reader wants a byte."""
        self.plan.wait(reader, kib << 10, float(next(self.clock)))

    @rule(reader=st.integers(0, 3))
    def leave(self, reader: int) -> None:
        """A reader leaves."""
        self.plan.served(reader)

    @invariant()
    def what_came_is_here(self) -> None:
        """All that came is known to be here."""
        assert self.plan.here.total == self.came.total

    @precondition(lambda self: not self.out)
    @rule()
    def finish(self) -> None:
        """With nobody failing any more, the rest comes."""
        while unit := self.plan.take(4, None):
            self.arrive(unit)
        assert self.plan.complete
        assert self.plan.front == self.size
        assert self.came.total == self.size


TestFilling = Filling.TestCase
TestFilling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
