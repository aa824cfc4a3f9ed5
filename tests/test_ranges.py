"""RangeSet behaves as a set of integers does, and keeps its ranges tidy."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mirror.values import ByteRange, RangeSet

LIMIT = 40
SPANS = st.tuples(st.integers(0, LIMIT), st.integers(0, LIMIT)).map(lambda pair: ByteRange(*sorted(pair)))
OFFSETS = st.integers(0, LIMIT + 2)


def offsets(span: ByteRange) -> set[int]:
    """The integers in a range."""
    return set(range(span.start, span.stop))


class AgainstIntegers(RuleBasedStateMachine):
    """Does the same to a RangeSet and to a set of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = RangeSet()
        self.members: set[int] = set()

    @rule(span=SPANS)
    def add(self, span: ByteRange) -> None:
        """What is new is counted once."""
        assert self.ranges.add(span) == len(offsets(span) - self.members)
        self.members |= offsets(span)

    @rule(span=SPANS)
    def discard(self, span: ByteRange) -> None:
        """What was no member does no harm."""
        self.ranges.discard(span)
        self.members -= offsets(span)

    @rule(within=SPANS)
    def gaps(self, within: ByteRange) -> None:
        """The gaps are what is not a member, in order, none of them empty or touching the next."""
        gaps = list(self.ranges.gaps(within))
        assert [offset for gap in gaps for offset in sorted(offsets(gap))] == sorted(offsets(within) - self.members)
        assert all(gaps)
        assert all(one.stop < other.start for one, other in pairwise(gaps))

    @rule(offset=OFFSETS)
    def end_from(self, offset: int) -> None:
        """The members that begin there end at the first that is none."""
        end = offset
        while end in self.members:
            end += 1
        assert self.ranges.end_from(offset) == end
        assert (offset in self.ranges) == (offset in self.members)

    @rule(span=SPANS)
    def covers(self, span: ByteRange) -> None:
        """It covers what it has all of."""
        assert self.ranges.covers(span) == (offsets(span) <= self.members)

    @rule(span=SPANS)
    def copy(self, span: ByteRange) -> None:
        """A copy is equal, and what is done to it does nothing to the first."""
        other = self.ranges.copy()
        assert other == self.ranges
        other.discard(span)
        other.add(ByteRange(LIMIT + 5, LIMIT + 6))
        assert other != self.ranges

    @invariant()
    def same_members(self) -> None:
        """Sorted, disjoint, not touching, none empty; the count is right."""
        spans = list(self.ranges)
        assert {offset for span in spans for offset in offsets(span)} == self.members
        assert all(spans)
        assert all(one.stop < other.start for one, other in pairwise(spans))
        assert self.ranges.total == len(self.members)
        assert RangeSet(reversed(spans)) == self.ranges


TestAgainstIntegers = AgainstIntegers.TestCase


@given(st.permutations([ByteRange(i, i + 1) for i in range(12)]))
def test_bytes_in_any_order_end_as_one_range(order: list[ByteRange]) -> None:
    """Connections bring the parts of a blob as they like."""
    assert list(RangeSet(order)) == [ByteRange(0, 12)]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (-2, -1)])
def test_a_range_that_is_none_cannot_be_made(start: int, stop: int) -> None:
    """A negative offset would be read from the end of something."""
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)


def test_a_range_is_half_open() -> None:
    """The end is the first offset that is not in it."""
    span = ByteRange(2, 4)
    assert [offset for offset in range(6) if offset in span] == [2, 3]
    assert (len(span), bool(ByteRange(4, 4))) == (2, False)


def test_it_shows_its_ranges_and_cannot_be_a_key() -> None:
    """A set that changes must not be hashed."""
    ranges = RangeSet([ByteRange(5, 7), ByteRange(0, 2)])
    assert repr(ranges) == "RangeSet(0-2, 5-7)"
    with pytest.raises(TypeError):
        hash(ranges)
