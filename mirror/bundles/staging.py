"""Blobs of an import on the store's disk, proven, but without their names. Everything here blocks."""

import fcntl
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from mirror.errors import BadBundle
from mirror.faultpoints import passing
from mirror.store.partial import full
from mirror.values import Digest

_STEP = 1 << 20
_COPY_STEP = 64 << 20
_FICLONE = 0x40049409
"""Share another file's bytes until one of the two is written (linux/fs.h); btrfs, XFS and others can."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""A pipe must not wait."""


class Staged:
    """A blob that is written to ``path`` as it comes, and hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashed = sha256()
        self._fd = -1

    def write(self, portion: bytes) -> None:
        """Append the next bytes. Raises StoreFull."""
        self._hashed.update(portion)
        try:
            self._open()
            _write(self._fd, portion)
        except OSError as error:
            raise full(error) from error

    def prove(self, digest: Digest) -> None:
        """Make what was written durable. Raises StoreFull, and BadBundle where it is not ``digest``."""
        got = self._hashed.hexdigest()
        if got != digest.hex:
            raise BadBundle(f"the bytes of {digest} are others: they hash to sha256:{got}")
        try:
            self._open()
            os.fsync(self._fd)
        except OSError as error:
            raise full(error) from error

    def close(self) -> None:
        """Close the file; more than once is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        if self._fd < 0:
            self._fd = os.open(self._path, _NEW, 0o644)


def bring(source: Path, target: Path, digest: Digest) -> Generator[int, None, None]:
    """Make ``target`` the blob that lies at ``source`` and prove it; yield the bytes proven so far, step by step.

    It shares the bytes on disk where it can: by a reflink, else by a hard link, else it is a copy.

    Raises:
        BadBundle: ``source`` cannot be read, or is not ``digest``.
        StoreFull: ``target`` cannot be written.
    """
    with _reading(source) as fd:
        if not _reflinked(fd, target) and not _linked(source, fd, target):
            for _ in _copied(source, fd, target):
                yield 0
    passing("import.unproven")
    yield from proven(target, digest, str(source))


def proven(path: Path, digest: Digest, origin: str) -> Iterator[int]:
    """Hash the file at ``path`` and make it durable; yield the bytes hashed so far.

    It gets the present time where that is allowed: an old file that no manifest names yet would be tidied away by
    Ollama, should that start now on the store's folder, and by our own keeper.

    Raises:
        BadBundle: it is not ``digest``; ``origin`` is what the sentence calls it.
        StoreFull: it cannot be read back or made durable.
    """
    hashed, done = sha256(), 0
    try:
        fd = os.open(path, _READ | os.O_NOFOLLOW)
        try:
            while step := os.pread(fd, _STEP, done):
                hashed.update(step)
                done += len(step)
                yield done
            with suppress(OSError):
                os.utime(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise full(error) from error
    if hashed.hexdigest() != digest.hex:
        raise BadBundle(f"{origin} has the wrong bytes: they hash to sha256:{hashed.hexdigest()}")


def hold(blob: Path, link: Path) -> bool:
    """Keep the bytes of a blob by a second name, whatever becomes of the first; False where that cannot be."""
    with suppress(OSError):
        os.link(blob, link)
        return True
    return False


@contextmanager
def _reading(source: Path) -> Iterator[int]:
    fd = -1
    try:
        fd = os.open(source, _READ)  # a link is followed: large blobs are often kept on another disk
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadBundle(f"{source} is not a file")
        yield fd
    except OSError as error:
        raise BadBundle(f"cannot read {source}: {error.strerror}") from error
    finally:
        if fd >= 0:
            os.close(fd)


def _reflinked(fd: int, target: Path) -> bool:
    with _writing(target) as new:
        try:
            fcntl.ioctl(new, _FICLONE, fd)
        except OSError:
            os.unlink(target)
            return False
    return True


def _linked(source: Path, fd: int, target: Path) -> bool:
    """Link ``target`` to the file that ``fd`` is, if ``source`` is that file and no link to it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, one without links, or somebody else's file
        return False
    if os.path.samestat(os.lstat(target), os.fstat(fd)):
        return True
    os.unlink(target)
    return False


def _copied(source: Path, fd: int, target: Path) -> Iterator[int]:
    """Copy, in the kernel where it can; yield the bytes there are, step by step."""
    done = 0
    with _writing(target) as new:
        with suppress(OSError):
            while count := os.copy_file_range(fd, new, _COPY_STEP, done, done):
                done += count
                yield done
        os.lseek(new, done, os.SEEK_SET)
        while step := _read(source, fd, done):
            _write(new, step)
            done += len(step)
            yield done


@contextmanager
def _writing(target: Path) -> Iterator[int]:
    try:
        new = os.open(target, _NEW, 0o644)
        try:
            yield new
        finally:
            os.close(new)
    except OSError as error:
        raise full(error) from error


def _read(source: Path, fd: int, at: int) -> bytes:
    try:
        return os.pread(fd, _STEP, at)
    except OSError as error:
        raise BadBundle(f"cannot read {source}: {error.strerror}") from error


def _write(fd: int, portion: bytes) -> None:
    rest = memoryview(portion)
    while rest:
        rest = rest[os.write(fd, rest) :]
