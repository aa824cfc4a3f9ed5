"""One connection of a fill at work."""

import time
from collections.abc import Callable

from mirror.upstream import Address, Transfer
from mirror.values import ByteRange


class Line:
    """A connection at work: its transfer, and how fast it is."""

    def __init__(self, unit: ByteRange, address: Address, urgent: Callable[[], bool]) -> None:
        self.address = address
        self.transfer = Transfer(unit, lambda _offset, _content: None, urgent=urgent)
        self.begun = self.last = time.monotonic()
        self.speed: float | None = None
        """Bytes per second so far, None while it is too early to say."""
        self._bytes = 0

    @property
    def rest(self) -> ByteRange:
        """What it has still to bring."""
        span = self.transfer.span
        return ByteRange(min(self.transfer.at, span.stop), span.stop)

    def moved(self, count: int) -> float | None:
        """Note bytes that came; return the speed."""
        self._bytes += count
        self.last = time.monotonic()
        elapsed = self.last - self.begun
        self.speed = self._bytes / elapsed if elapsed > 0.05 else None
        return self.speed

    def late_for(self, offset: int, patience_s: float) -> bool:
        """Say whether, at its speed, it is longer than that before it comes to ``offset``."""
        return self.speed is not None and (offset - self.transfer.at) / self.speed > patience_s
