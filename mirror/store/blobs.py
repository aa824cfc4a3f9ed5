"""Proven blobs at rest."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from mirror.store.layout import Layout, blob_files
from mirror.store.stamp import Stamp
from mirror.values import Digest


class OpenBlob:
    """A proven blob held open for reading: it stays readable when it is dropped meanwhile. Close it.

    ``let_go`` is told when it is closed. ``stamp`` is what the file was like when it was proven, where others may write
    to it.
    """

    def __init__(
        self, let_go: Callable[["OpenBlob"], None], digest: Digest, fd: int, size: int, stamp: Stamp | None = None
    ) -> None:
        self._let_go = let_go
        self._stamp = stamp
        self._condemned = False
        self.digest = digest
        self.fd = fd
        self.size = size

    @property
    def sound(self) -> bool:
        """Whether its bytes are still what the name says, as far as anybody knows: else no more of it may go out."""
        return not self._condemned and (self._stamp is None or Stamp.of(os.fstat(self.fd)) == self._stamp)

    def condemn(self) -> None:
        """Its bytes were found not to be what the name says."""
        self._condemned = True

    def close(self) -> None:
        """Let go of it; more than once is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._let_go(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class BlobStore:
    """Blobs by digest: a name in the folder means whole and proven. For the event loop's thread only.

    Nothing here puts a blob in: that is for ``Partial.publish`` and, where the bytes were proven otherwise, the
    Store. ``unlink`` takes a file away, or raises OSError.
    """

    def __init__(self, layout: Layout, unlink: Callable[[Path], None] = Path.unlink) -> None:
        self._layout = layout
        self._prefix = f"{layout.blobs}{os.sep}"  # a Path for every range would cost as much as opening the file
        self._unlink = unlink
        self._readers: dict[Digest, list[OpenBlob]] = {}
        self._doomed: set[Digest] = set()
        self._condemned: set[Digest] = set()
        self._wanted: Counter[Digest] = Counter()

    def open(self, digest: Digest) -> OpenBlob | None:
        """Open a blob for reading; None when it is not here, or cannot be read."""
        if digest in self._condemned:
            return None
        try:
            # O_NONBLOCK: a pipe must not wait
            fd = os.open(self._prefix + digest.filename, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:  # missing, a loop of links, no permission, no descriptor left: upstream has it too
            return None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            return None
        blob = OpenBlob(self.let_go, digest, fd, found.st_size)
        self._readers.setdefault(digest, []).append(blob)
        return blob

    def size(self, digest: Digest) -> int | None:
        """Return a blob's size in bytes; None when it is not here, or cannot be looked at."""
        if digest in self._condemned:
            return None
        try:
            found = os.stat(self._prefix + digest.filename)
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, digest: Digest, limit: int) -> bytes | None:
        """Return a small blob's content; None when it is not here or larger than ``limit`` bytes."""
        with self.open(digest) or _Nothing() as blob:
            if blob is None or blob.size > limit:
                return None
            return os.pread(blob.fd, blob.size, 0)

    def drop(self, digest: Digest) -> int:
        """Remove a blob nothing names any more; return the bytes freed, now or when its last reader is done."""
        size = self.size(digest)
        if size is None:
            return 0
        if digest in self._readers:
            self._doomed.add(digest)
        else:
            self._take_away(digest)
        return size

    def spare(self, digest: Digest) -> None:
        """Take back a drop that still waits for a reader, because the blob is named again."""
        self._doomed.discard(digest)

    @contextmanager
    def wanting(self, digests: Iterable[Digest]) -> Iterator[None]:
        """While the context lasts these blobs stay where they are here, though no manifest may name them yet."""
        wanted = Counter(digests)
        self._wanted += wanted
        try:
            yield
        finally:
            self._wanted -= wanted

    @property
    def wanted(self) -> Set[Digest]:
        """Those that somebody is about to have named."""
        return self._wanted.keys()

    def being_read(self, digest: Digest) -> bool:
        """Whether somebody holds it open."""
        return digest in self._readers

    @property
    def open_ones(self) -> set[Digest]:
        """Those that somebody holds open."""
        return set(self._readers)

    def condemn(self, digest: Digest) -> None:
        """The file is not what its name says: nobody may read on, and for all who ask it is not here."""
        self._condemned.add(digest)
        for blob in self._readers.get(digest, ()):
            blob.condemn()

    def put_aside(self, digest: Digest) -> None:
        """The condemned file has lost its name: whatever gets it is another."""
        self._condemned.discard(digest)

    def arrived(self, digest: Digest) -> None:
        """A proven file has the name now, whatever was there before."""
        self._condemned.discard(digest)
        self.spare(digest)

    def let_go(self, blob: OpenBlob) -> None:
        """One reader is done; called by OpenBlob only."""
        digest, readers = blob.digest, self._readers[blob.digest]
        readers.remove(blob)
        if not readers:
            del self._readers[digest]
            if digest in self._doomed:
                self._doomed.discard(digest)
                with suppress(OSError):
                    self._take_away(digest)

    def _take_away(self, digest: Digest) -> None:
        with suppress(FileNotFoundError):
            self._unlink(self._layout.blob(digest))

    def __iter__(self) -> Iterator[tuple[Digest, int]]:
        """Yield every blob and its size in bytes, in no order."""
        for digest, found in blob_files(self._layout.blobs):
            yield digest, found.st_size


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
