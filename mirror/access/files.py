"""Small files of the state folder that must be whole, private and their owner's, whoever writes them."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from mirror import lockfiles
from mirror.errors import StoreUnusable

_TRIES = 500
_PAUSE_S = 0.01
_PRIVATE = 0o600

Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """Return what of a file changes with its content (ns, bytes, inode); None where there is none to look at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def content(path: Path, most: int) -> bytes:
    """Return what is in a file, without waiting for one that is a pipe. Raises OSError, also for more than ``most``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        raw = file.read(most + 1) if found.st_size <= most else b""
    if len(raw) > most or found.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes", str(path))
    return raw


def make_folder(folder: Path) -> None:
    """Make the state folder where it is missing, for the owner of the folder it is in. Raises OSError.

    Folders above it that are missing are made too, as ``mirror serve`` would, for the owner of the first that is there.
    """
    if not folder.is_dir():
        if not folder.parent.is_dir():
            _make_parent(folder.parent)
        folder.mkdir(mode=0o700)
        _give(folder, os.stat(folder.parent))


def _make_parent(folder: Path) -> None:
    if not folder.parent.is_dir():
        _make_parent(folder.parent)
    folder.mkdir()
    _give(folder, os.stat(folder.parent))


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``: readers, and a crash, see the old file or all of the new one. Raises OSError.

    For one writer at a time: what a crash left half written is taken away by the next.
    """
    new = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        os.unlink(new)
    _write(new, content)
    try:
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    _sync(path.parent)


def make_once(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` unless a file is there already, which then stays. Raises OSError."""
    new = path.with_name(f"{path.name}.{uuid4().hex}.new")
    _write(new, content)
    try:
        with suppress(FileExistsError):
            os.link(new, path, follow_symlinks=False)
    finally:
        os.unlink(new)
    _sync(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at ``path`` (flock), which ends with the process. Blocks; raises StoreUnusable after seconds."""
    try:
        fd, made = lockfiles.opened(path)
    except OSError as error:
        raise StoreUnusable(f"cannot open {path}: {error.strerror}") from error
    try:
        if made:
            _give(fd, os.stat(path.parent))
        for _ in range(_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(_PAUSE_S)
            else:
                break
        else:
            raise StoreUnusable(f"{path} is held by another command; try again when that has ended")
        yield
    finally:
        os.close(fd)


def _write(new: Path, content: bytes) -> None:
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            _give(file.fileno(), os.stat(new.parent))
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def _give(made: int | Path, like: os.stat_result) -> None:
    """Give what root makes to the owner of the folder it is in: the mirror that is to read it may be another user."""
    if os.geteuid() != 0:
        return
    if isinstance(made, int):
        os.fchown(made, like.st_uid, like.st_gid)
    else:
        os.chown(made, like.st_uid, like.st_gid, follow_symlinks=False)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
