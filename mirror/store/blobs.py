"""Proven blobs at rest."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from mirror.store.layout import Layout
from mirror.values import Digest


class OpenBlob:
    """A proven blob held open for reading: it stays readable when it is dropped meanwhile. Close it."""

    def __init__(self, blobs: "BlobStore", digest: Digest, fd: int, size: int) -> None:
        self._blobs = blobs
        self.digest = digest
        self.fd = fd
        self.size = size

    def close(self) -> None:
        """Let go of it; more than once is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._blobs.let_go(self.digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class BlobStore:
    """Blobs by digest: a name in the folder means whole and proven. For the event loop's thread only.

    Nothing here puts a blob in: that is for ``Partial.publish`` and, where the bytes named themselves,
    ``Store.put_small_blob``.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._readers: Counter[Digest] = Counter()
        self._doomed: set[Digest] = set()

    def open(self, digest: Digest) -> OpenBlob | None:
        """Open a blob for reading; None when it is not here, or cannot be read."""
        try:
            fd = os.open(self._layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not wait
        except OSError:  # missing, a loop of links, no permission, no descriptor left: upstream has it too
            return None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            return None
        self._readers[digest] += 1
        return OpenBlob(self, digest, fd, found.st_size)

    def size(self, digest: Digest) -> int | None:
        """Return a blob's size in bytes; None when it is not here, or cannot be looked at."""
        try:
            found = os.stat(self._layout.blob(digest))
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
        if self._readers[digest]:
            self._doomed.add(digest)
        else:
            self._layout.blob(digest).unlink(missing_ok=True)
        return size

    def spare(self, digest: Digest) -> None:
        """Take back a drop that still waits for a reader, because the blob is named again."""
        self._doomed.discard(digest)

    def let_go(self, digest: Digest) -> None:
        """One reader is done; called by OpenBlob only."""
        self._readers[digest] -= 1
        if not self._readers[digest]:
            del self._readers[digest]
            if digest in self._doomed:
                self._doomed.discard(digest)
                with suppress(OSError):
                    self._layout.blob(digest).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[tuple[Digest, int]]:
        """Yield every blob and its size in bytes, in no order."""
        with suppress(FileNotFoundError), os.scandir(self._layout.blobs) as entries:
            for entry in entries:
                with suppress(ValueError, OSError):
                    digest = Digest.parse(entry.name)
                    if entry.is_file() and entry.name == digest.filename:
                        yield digest, entry.stat().st_size


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
