"""A bundle into a file, going on where an earlier attempt was cut off."""

import fcntl
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event

from mirror.bundles.feed import Feed
from mirror.bundles.members import Members
from mirror.bundles.proof import Proof
from mirror.errors import BadBundle
from mirror.store.layout import sync_folder
from mirror.threads import in_thread

_PIECE = 1 << 20

Report = Callable[[int, int | None], None]
"""Told how many bytes are done, and of how many, where that is known. On the event loop; must not wait."""


def kept_prefix(path: Path, members: Members, stop: Callable[[], bool] = lambda: False) -> int:
    """Return how many bytes at the beginning of an unfinished tar are whole members and right. Blocks.

    Every byte is read again and hashed, until ``stop`` says to end. A file that is not there has none. Raises OSError.
    """
    proof = Proof(members)
    try:
        with path.open("rb", buffering=0) as file:
            while not stop() and (piece := file.read(_PIECE)):
                proof.feed(piece)
    except (FileNotFoundError, BadBundle):
        pass  # what was right before it counts
    return proof.whole


async def save(
    target: Path, members: Members, pieces: Callable[[int], AsyncGenerator[bytes, None]], report: Report
) -> None:
    """Write a tar to ``target``: first to ``target.partial``, which is kept on failure and gone on with next time.

    ``pieces`` yields the tar of ``members`` from a byte on: that of a Bundle here, or one that a far mirror sends.
    Every byte is compared with ``members`` before it is written. Whatever ``pieces`` raises goes through.

    Raises:
        BadBundle: other bytes came, or too few; the file cannot be written, is a folder or a device, or another process
            is at it.
    """
    file, stopped = _Unfinished(_regular(target), members), Event()
    threads = ThreadPoolExecutor(1, thread_name_prefix="save")
    try:
        await in_thread(threads, lambda: file.open(stopped.is_set), stopped.set)
        report(file.size, members.total)
        async with aclosing(pieces(file.size)) as chunks:
            feed = Feed(chunks)
            while piece := await feed.upto(_PIECE):
                await in_thread(threads, partial(file.append, piece))
                report(file.size, members.total)
        await in_thread(threads, file.finish)
    finally:
        try:
            await in_thread(threads, file.close)  # there, for it may still be writing when our patience ends
        finally:
            threads.shutdown(wait=False)


def _regular(target: Path) -> Path:
    """Return the file to write, through a link to it. Raises BadBundle for what a file must not take the place of."""
    found = target.resolve() if target.is_symlink() else target
    if found.exists() and not found.is_file():
        what = "a folder" if found.is_dir() else "no file that can be replaced; write to - and redirect that"
        raise BadBundle(f"cannot write {target}: it is {what}")
    return found


class _Unfinished:
    """A tar on its way into its file. Its methods block, and are for one thread at a time."""

    def __init__(self, target: Path, members: Members) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.partial")
        self._members = members
        self._proof = Proof(members)
        self._fd = -1

    @property
    def size(self) -> int:
        """How many bytes are there and right."""
        return self._proof.at

    def open(self, stop: Callable[[], bool]) -> None:
        """Find out what an earlier attempt left, and cut off what is not right."""
        with self._errors_named():
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not _locked(self._fd):
                raise BadBundle(f"another process is writing {self._path}")
            kept = kept_prefix(self._path, self._members, stop)
            if not stop():
                os.ftruncate(self._fd, kept)
                os.lseek(self._fd, kept, os.SEEK_SET)
                self._proof = Proof(self._members, kept)

    def append(self, piece: bytes) -> None:
        """Check and write the next bytes."""
        self._proof.feed(piece)
        rest = memoryview(piece)
        with self._errors_named():
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def finish(self) -> None:
        """Give it its name, if all of it is there."""
        if self.size < self._members.total:
            raise BadBundle(f"only {self.size} of {self._members.total} bytes came; try again to go on from there")
        with self._errors_named():
            os.fsync(self._fd)
            os.replace(self._path, self._target)
            sync_folder(self._target.parent)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadBundle(f"cannot write {self._path}: {error.strerror}") from error


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
