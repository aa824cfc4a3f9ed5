"""Which range to fetch next, and for whom: pure, told the time by its caller."""

from collections.abc import Hashable, Iterator

from mirror.values import ByteRange, RangeSet

SMALLEST_UNIT = 256 << 10
FIRST_UNIT = 1 << 20
LAST_UNIT = 4 << 20
LARGEST_UNIT = 64 << 20
UNIT_S = 4.0
"""How long a connection is busy with one range, about: what a reader may have to wait for a free one."""
LONGEST_WAIT_S = 8.0
"""Within this time every waiting reader shall have had its turn."""


class FillPlan:
    """The blob as offsets: here, on their way, or wanted. Ranges are taken in this order:

    1. where a reader waits and nobody fetches yet, the one who has waited longest first;
    2. the first gap, so that the rest comes in order.

    A range is as long as a connection takes ``UNIT_S`` for, shorter when more readers wait than there are
    connections, and shorter towards the end so that all connections finish together.
    """

    def __init__(self, size: int, here: RangeSet) -> None:
        self.size = size
        self.here = here
        self._taken = RangeSet()
        self._waiting: dict[Hashable, tuple[float, int]] = {}

    def wait(self, reader: Hashable, offset: int, now: float) -> None:
        """A reader waits for the byte at ``offset`` since ``now`` (seconds of any clock)."""
        self._waiting[reader] = (now, offset)

    def served(self, reader: Hashable) -> None:
        """The reader waits no more."""
        self._waiting.pop(reader, None)

    def take(self, connections: int, speed: float | None) -> ByteRange | None:
        """Return the next range to fetch, now taken, or None when nothing is left to give.

        ``speed`` is what one connection brings, in bytes per second, if known.
        """
        start = self._next_start()
        if start is None:
            return None
        gap = next(self._open_gaps(ByteRange(start, self.size)))
        unit = ByteRange(start, min(gap.stop, start + self._unit(connections, speed)))
        self._taken.add(unit)
        return unit

    def take_rest(self) -> ByteRange | None:
        """Return everything from the first gap to the end, for an upstream that knows no ranges."""
        start = self._next_start() if not self._taken.total else None
        if start is None:
            return None
        rest = ByteRange(self.here.end_from(0), self.size)
        self._taken.add(rest)
        return rest

    def arrived(self, span: ByteRange) -> None:
        """These bytes are here."""
        self.here.add(span)
        self._taken.discard(span)

    def give_back(self, span: ByteRange) -> None:
        """Nobody fetches these any more; what of them arrived stays."""
        self._taken.discard(span)

    def waited_for(self, span: ByteRange) -> list[int]:
        """Return the bytes of ``span`` that readers wait for, in order."""
        return sorted(offset for _, offset in self._waiting.values() if offset in span)

    @property
    def open(self) -> bool:
        """Whether there is anything to take."""
        return next(self._open_gaps(ByteRange(0, self.size)), None) is not None

    @property
    def front(self) -> int:
        """Up to here every byte is here."""
        return self.here.end_from(0)

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        return self.here.total == self.size

    def _next_start(self) -> int | None:
        for _, offset in sorted(self._waiting.values()):
            if offset < self.size and offset not in self.here and offset not in self._taken:
                return offset
        gap = next(self._open_gaps(ByteRange(0, self.size)), None)
        return gap.start if gap else None

    def _open_gaps(self, within: ByteRange) -> Iterator[ByteRange]:
        """The parts of ``within`` neither here nor taken, in order."""
        return (piece for gap in self.here.gaps(within) for piece in self._taken.gaps(gap))

    def _unit(self, connections: int, speed: float | None) -> int:
        if speed is None:
            return FIRST_UNIT
        turn_s = min(UNIT_S, LONGEST_WAIT_S * connections / max(1, len(self._waiting)))
        left = self.size - self.here.total - self._taken.total
        even = max(LAST_UNIT, left // (2 * connections))
        return max(SMALLEST_UNIT, min(LARGEST_UNIT, int(speed * turn_s), even))
