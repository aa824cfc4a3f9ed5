"""Byte ranges, half-open everywhere: ``ByteRange(0, 3)`` is the bytes 0, 1 and 2."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """The bytes from ``start`` up to, not including, ``stop``; never negative, may be empty."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a byte range: {self.start} to {self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start

    def __contains__(self, offset: int) -> bool:
        return self.start <= offset < self.stop


class RangeSet:
    """A set of offsets, kept as sorted disjoint ranges that do not touch. Not safe across threads."""

    __slots__ = ("_starts", "_stops", "_total")

    def __init__(self, ranges: Iterable[ByteRange] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._total = 0
        for one in ranges:
            self.add(one)

    def add(self, span: ByteRange) -> int:
        """Put in every offset of ``span``; return how many of them were new."""
        if not span:
            return 0
        first = bisect_left(self._stops, span.start)
        last = bisect_right(self._starts, span.stop)
        start, stop, had = span.start, span.stop, 0
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
            had = sum(self._stops[i] - self._starts[i] for i in range(first, last))
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]
        self._total += stop - start - had
        return stop - start - had

    def discard(self, span: ByteRange) -> None:
        """Take out every offset of ``span``."""
        if not span:
            return
        first = bisect_right(self._stops, span.start)
        last = bisect_left(self._starts, span.stop)
        kept = []
        for i in range(first, last):
            start, stop = self._starts[i], self._stops[i]
            self._total -= stop - start
            kept += [(start, span.start)] if start < span.start else []
            kept += [(span.stop, stop)] if stop > span.stop else []
        self._total += sum(stop - start for start, stop in kept)
        self._starts[first:last] = [start for start, _ in kept]
        self._stops[first:last] = [stop for _, stop in kept]

    def end_from(self, offset: int) -> int:
        """Return where the members that begin at ``offset`` end; ``offset`` itself if it is none."""
        i = bisect_right(self._starts, offset) - 1
        return max(offset, self._stops[i]) if i >= 0 else offset

    def gaps(self, within: ByteRange) -> Iterator[ByteRange]:
        """Yield, in order, the parts of ``within`` that are not members."""
        at = within.start
        for i in range(bisect_right(self._stops, at), len(self._starts)):
            if self._starts[i] >= within.stop:
                break
            if self._starts[i] > at:
                yield ByteRange(at, self._starts[i])
            at = self._stops[i]
        if at < within.stop:
            yield ByteRange(at, within.stop)

    def covers(self, span: ByteRange) -> bool:
        """Say whether every offset of ``span`` is a member."""
        return self.end_from(span.start) >= span.stop

    @property
    def total(self) -> int:
        """How many offsets are members."""
        return self._total

    def copy(self) -> "RangeSet":
        """Return a set with the same members that changes on its own."""
        return RangeSet(self)

    def __iter__(self) -> Iterator[ByteRange]:
        return (ByteRange(a, b) for a, b in zip(self._starts, self._stops, strict=True))

    def __contains__(self, offset: int) -> bool:
        return self.end_from(offset) > offset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and (self._starts, self._stops) == (other._starts, other._stops)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"RangeSet({', '.join(f'{r.start}-{r.stop}' for r in self)})"
