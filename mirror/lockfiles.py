"""Opening the file of a lock, which may lie in a folder of another user than the one that opens it.

Root runs our commands too, in a folder that the mirror's user may put links into: it must neither write into what such
a link leads to nor give that away.
"""

import errno
import os
import stat
from pathlib import Path

_PRIVATE = 0o600
_TRIES = 10


class OddFile(OSError):
    """What stands there is no plain file of its own; ``strerror`` is the end of a sentence for a person."""


def opened(path: Path) -> tuple[int, bool]:
    """Open the file for reading and writing, and make it, private, where there is none; say whether it was made.

    Never waits. Raises OddFile where it is a link, has a second name or is no plain file, and OSError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(_TRIES):
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, _PRIVATE), True
        except FileExistsError:
            pass
        try:
            return _checked(os.open(path, flags), path), False
        except FileNotFoundError:
            continue  # somebody has removed it meanwhile
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
                raise _odd(path) from error
            raise
    raise FileNotFoundError(errno.ENOENT, "it is made and removed again and again", str(path))


def opened_to_look(path: Path) -> int:
    """Open the file for reading, if there is one. Never waits. Raises OddFile and OSError."""
    try:
        return _checked(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _odd(path) from error
        raise


def _checked(fd: int, path: Path) -> int:
    found = os.fstat(fd)
    # Without any name it was removed after it was opened: who locks it finds out (``StoreLock.keep``).
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return fd
    os.close(fd)
    raise _odd(path)


def _odd(path: Path) -> OddFile:
    return OddFile(
        errno.EINVAL, "it is a link, or not a plain file with one name; see who put it there, and remove it", path
    )
