"""How often a fill asks again, and after what pauses: pure, told the time by its caller."""

import random
from collections.abc import Callable

from mirror.errors import RateLimited, UpstreamError

_LONGEST_PAUSE_S = 30.0


def _spread() -> float:
    return 0.5 + random.random()  # noqa: S311  # not a secret


class Setbacks:
    """The failures in a row, without a byte between them, of all of a fill's connections together.

    Rounds are what lies between pauses: connections that began in one and fail, fail together and count once.
    ``spread`` gives a factor for pauses, so that mirrors do not come back in step.
    """

    def __init__(self, attempts: int, delay_s: float, spread: Callable[[], float] = _spread) -> None:
        self.round = 0
        self.in_a_row = 0
        self.resume_at = 0.0
        self._attempts = attempts
        self._delay_s = delay_s
        self._spread = spread

    def overcome(self) -> None:
        """A byte came."""
        self.in_a_row = 0

    def add(self, error: UpstreamError, began_in: int, now: float, *, at_once: bool) -> None:
        """Note what a connection that began in round ``began_in`` failed with; nobody asks before ``resume_at``.

        ``at_once``: there is a reason to hope that the next try goes well without waiting.

        Raises:
            UpstreamError: ``error`` itself, where asking again changes nothing or was tried often enough.
        """
        if error.permanent:
            raise error
        if began_in != self.round:
            return
        self.round += 1
        self.in_a_row += 1
        if self.in_a_row > self._attempts:
            raise error
        self.resume_at = now + (0.0 if at_once and self.in_a_row == 1 else self._pause(error))

    def _pause(self, error: UpstreamError) -> float:
        if isinstance(error, RateLimited) and error.retry_after_s is not None:
            return min(error.retry_after_s, _LONGEST_PAUSE_S)
        return min(_LONGEST_PAUSE_S, self._delay_s * 2.0 ** (self.in_a_row - 1)) * self._spread()
