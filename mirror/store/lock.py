"""One process at a time may change a store."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Self

from mirror import lockfiles
from mirror.errors import StoreBusy, StoreUnusable

_TRIES = 20
_PAUSE_S = 0.01
_LONGEST = 4096


class StoreLock:
    """A lock on a store that ends with the process that holds it, however that ends (flock).

    The file says who holds it and, when that is a server, where it listens, so that commands can find it.
    """

    def __init__(self, path: Path, holder: str) -> None:
        self._path = path
        self._holder = f"{holder} (process {os.getpid()})"
        self._fd = -1
        self._url: str | None = None

    def take(self) -> Self:
        """Take the lock now, or raise StoreBusy; StoreUnusable where the file cannot be made or is a link."""
        try:
            fd, _ = lockfiles.opened(self._path)
        except OSError as error:
            raise StoreUnusable(f"cannot open {self._path}: {error.strerror}") from error
        if not _locked(fd):
            busy = _busy(fd)
            os.close(fd)
            raise busy
        self._fd = fd
        self.announce(None)
        return self

    def announce(self, url: str | None) -> None:
        """Say in the file where this holder listens. On a full disk nothing is said; the lock holds all the same."""
        self._url = url
        said = json.dumps({"holder": self._holder, "url": url, "pid": os.getpid()}).encode()
        try:
            os.pwrite(self._fd, said, 0)
            os.ftruncate(self._fd, len(said))
        except OSError:
            os.ftruncate(self._fd, 0)  # rather nothing than a former holder's words

    def keep(self) -> None:
        """See to it that the file which is locked is the one that others look at: somebody may have removed it.

        Call it now and then. Raises StoreBusy where another process has taken the store by a new file meanwhile:
        then this one must stop.
        """
        try:
            found = os.lstat(self._path)
        except OSError:
            found = None
        mine = os.fstat(self._fd)
        if found is not None and (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            return
        former, url = self._fd, self._url
        try:
            self.take()
        except StoreUnusable:
            return  # nobody else can make one either
        os.close(former)
        self.announce(url)

    def release(self) -> None:
        """Give it up; harmless when not held. The file stays, for it is what others lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def holder(path: Path) -> StoreBusy | None:
    """Say who holds the lock at ``path``, or None when nobody does. Changes nothing."""
    try:
        fd = lockfiles.opened_to_look(path)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _busy(fd)
    else:
        return None
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    """Lock ``fd`` if it can be had now; ``holder`` of another process may have it for a moment just to look."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(_PAUSE_S)
        else:
            return True
    return False


def _busy(fd: int) -> StoreBusy:
    try:
        said = json.loads(os.pread(fd, _LONGEST, 0))
        pid = said.get("pid")
        return StoreBusy(str(said["holder"]), said["url"], pid if type(pid) is int else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return StoreBusy("another process", None)
