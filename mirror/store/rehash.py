"""Reading a file again to see whether it is still what its name says, without getting in anybody's way."""

import hashlib
import os
import time
from pathlib import Path
from threading import Event

from mirror.values import Digest

_STEP = 4 << 20


class Pace:
    """Lets a thread go on only so fast: bytes per second on average, None for as fast as it can.

    ``stop`` ends its waits too.
    """

    def __init__(self, rate: float | None, stop: Event) -> None:
        self.stop = stop
        self.done = 0
        self._rate = rate
        self._due = time.monotonic()

    def spent(self, count: int) -> None:
        """Note ``count`` bytes, and wait until they may have been read."""
        self.done += count
        if self._rate is not None:
            self._due = max(self._due, time.monotonic() - 1) + count / self._rate
            self.stop.wait(max(0.0, self._due - time.monotonic()))


def rehash(path: Path, pace: Pace) -> Digest | None:
    """Return the digest of a file's bytes; None where ``pace`` was told to stop. Blocks.

    What lies in the page cache is read there, as that is what readers get; what does not is left out of it again, so
    that hashing a cold store does not push out what is hot. Raises OSError where the disk cannot be read.
    """
    sha256, buffer, at = hashlib.sha256(), memoryview(bytearray(_STEP)), 0
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # reading ahead would fill the page cache after all
        while not pace.stop.is_set():
            count, cached = _read(fd, buffer, at)
            if not count:
                return Digest(sha256.hexdigest())
            sha256.update(buffer[:count])
            if not cached:
                os.posix_fadvise(fd, at, count, os.POSIX_FADV_DONTNEED)
            at += count
            pace.spent(count)
    finally:
        os.close(fd)
    return None


def _read(fd: int, buffer: memoryview, at: int) -> tuple[int, bool]:
    """Read what there is at ``at``; return how much, and whether it came from the page cache."""
    try:
        return os.preadv(fd, [buffer], at, os.RWF_NOWAIT), True
    except OSError:  # not in the page cache, or a file system that cannot say
        return os.preadv(fd, [buffer], at), False
