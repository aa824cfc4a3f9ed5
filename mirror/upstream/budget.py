"""One byte budget for everything that comes from an upstream, the urgent before the rest."""

import threading
import time
from collections.abc import Callable

_BURST_S = 0.25
_LOOK_S = 0.2


class Bucket:
    """A token bucket that may go into debt: whoever finds it above zero takes all they have, and others wait.

    Pure: the caller says what time it is, in seconds of any clock that does not go back. ``rate`` is bytes per
    second; None is no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._balance = (rate or 0.0) * _BURST_S
        self._at: float | None = None

    def take(self, count: int, now: float) -> float:
        """Take ``count`` bytes and return 0, or take nothing and return how many seconds to wait first."""
        if self.rate is None:
            return 0.0
        elapsed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._balance = min(self.rate * _BURST_S, self._balance + elapsed * self.rate)
        if self._balance <= 0:
            return max(-self._balance / self.rate, 0.001)
        self._balance -= count
        return 0.0


class Budget:
    """The bucket shared by all transfers of one upstream. Any thread may wait on it.

    Bytes for a client who is reading now go first: the rest gets none while one of those waits.
    """

    def __init__(self, rate: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._bucket = Bucket(rate)
        self._now = now
        self._changed = threading.Condition()
        self._urgent_until = 0.0

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit, so that nobody ever waits."""
        return self._bucket.rate is None

    def set_rate(self, rate: float | None) -> None:
        """Change the limit, in bytes per second, for all who wait now and later."""
        with self._changed:
            self._bucket = Bucket(rate)
            self._changed.notify_all()

    def spend(self, count: int, *, urgent: Callable[[], bool], stop: Callable[[], bool]) -> None:
        """Wait until ``count`` bytes may pass, or ``stop`` says that nobody wants them. Blocks its thread."""
        if self.unlimited:
            return
        with self._changed:
            while not stop():
                delay = self._try(count, urgent=urgent())
                if delay == 0:
                    return
                self._changed.wait(min(delay, _LOOK_S))

    def _try(self, count: int, *, urgent: bool) -> float:
        """Take now if allowed; else note an urgent wish, which the others respect for as long as it waits."""
        now = self._now()
        if not urgent and now < self._urgent_until:
            return self._urgent_until - now
        delay = self._bucket.take(count, now)
        if urgent:
            self._urgent_until = now + delay if delay else 0.0
        return delay
