"""One byte budget for everything that comes from an upstream, the urgent before the rest."""

import asyncio
import threading
import time
from collections.abc import Callable

_BURST_S = 0.25
_LOOK_S = 0.2
_PIECE_S = 0.05
_SMALLEST_PIECE = 4 << 10


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

    def owe(self, count: int) -> None:
        """Count ``count`` bytes that have come in without having waited for their turn."""
        self._balance -= count


class Budget:
    """The bucket shared by all transfers of one upstream. Any thread may wait on it, and any task.

    Bytes for a client who is reading now go first: the rest gets none while one of those waits.
    """

    def __init__(self, rate: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._bucket = Bucket(rate)
        self._now = now
        self._changed = threading.Condition()
        self._urgent = 0

    @property
    def rate(self) -> float | None:
        """The limit in bytes per second; None is no limit."""
        return self._bucket.rate

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit, so that nobody ever waits."""
        return self._bucket.rate is None

    @property
    def piece(self) -> int | None:
        """How many bytes to read at once so that transfers take turns often; None is as many as one likes."""
        rate = self._bucket.rate
        return None if rate is None else max(_SMALLEST_PIECE, int(rate * _PIECE_S))

    def set_rate(self, rate: float | None) -> None:
        """Change the limit, in bytes per second, for all who wait now and later; what is owed is forgotten then."""
        with self._changed:
            if rate == self._bucket.rate:
                return
            self._bucket = Bucket(rate)
            self._changed.notify_all()

    def spend(self, count: int, *, urgent: Callable[[], bool], stop: Callable[[], bool]) -> None:
        """Wait until ``count`` bytes that came in may be used, or ``stop`` says that nobody waits. Blocks its thread.

        They count in any case, for they have come.
        """
        if self.unlimited:
            return
        with self._changed:
            while not stop():
                wish = urgent()
                delay = self._try(count, urgent=wish)
                if delay == 0:
                    return
                self._urgent += wish
                try:
                    self._changed.wait(min(delay, _LOOK_S))
                finally:
                    self._urgent -= wish
            self._bucket.owe(count)

    async def spend_waiting(self, count: int) -> None:
        """The same for a task, urgent."""
        while not self.unlimited:
            with self._changed:
                delay = self._try(count, urgent=True)
                self._urgent += delay > 0
            if delay == 0:
                return
            try:
                await asyncio.sleep(min(delay, _LOOK_S))
            finally:
                with self._changed:
                    self._urgent -= 1

    def _try(self, count: int, *, urgent: bool) -> float:
        """Take now if allowed; return 0, or how long to wait before trying again."""
        if self._urgent and not urgent:
            return _PIECE_S
        return self._bucket.take(count, self._now())
