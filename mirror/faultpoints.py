"""Named moments between two steps that change the disk, at which a test can have the process killed. Touches nothing.

A crash may come between any two steps; waiting for one to come by chance proves little. So each such moment has a
name, and tests run the real program with one of them armed. Nothing a user can set arms one.
"""

import os
import signal

_armed: dict[str, int] = {}


def arm(point: str, times: int = 1) -> None:
    """Have this process killed, as by ``kill -9``, when it passes ``point`` for the ``times``-th time."""
    _armed[point] = times


def left(point: str) -> int:
    """Return how often ``point`` must still be passed; 0 where it is not armed."""
    return _armed.get(point, 0)


def passing(point: str) -> None:
    """Say that the program is at ``point``; costs nothing where none is armed. From any thread."""
    if _armed and point in _armed:
        _armed[point] -= 1
        if not _armed[point]:
            os.kill(os.getpid(), signal.SIGKILL)
