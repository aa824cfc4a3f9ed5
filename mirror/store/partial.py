"""A blob on its way in: bytes at rest that are not yet proven."""

import hashlib
import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from mirror.errors import BrokenStore, DigestMismatch, StoreFull
from mirror.faultpoints import passing
from mirror.store.layout import Layout, sync_folder
from mirror.values import ByteRange, Digest, RangeSet

_HASH_BYTES = 512 << 10


def full(error: OSError | OverflowError) -> StoreFull:
    """Return the StoreFull that an error on a write means; no file is as large as to overflow."""
    return StoreFull(f"the store cannot be written: {getattr(error, 'strerror', None) or error}")


class Partial:
    """A sparse file of the blob's full size, and a record of the ranges of it that are durable.

    ``write`` may be called from any number of threads at once, for ranges that do not overlap; ``record``,
    ``advance`` and ``publish`` from one thread at a time. After ``kill -9`` the next ``open`` finds what the last
    ``record`` said. The descriptor ``fd`` may be read (and sent) by anybody until ``close``.
    """

    def __init__(self, layout: Layout, digest: Digest, size: int, fd: int, have: RangeSet) -> None:
        self._layout = layout
        self.digest = digest
        self.size = size
        self.fd = fd
        self.resumed = have
        self._sha256 = hashlib.sha256()
        self._writing = threading.Lock()
        self.hashed = 0

    @classmethod
    def open(cls, layout: Layout, digest: Digest, size: int) -> Self:
        """Go on with what is there of the blob, or begin; ``resumed`` is what is there.

        Raises:
            StoreFull: there is no room for the rest of it, or nothing can be written.
        """
        have = _recorded(layout, digest, size)
        try:
            if not have.total:  # what an old record says must never be believed of the new file
                layout.record(digest).unlink(missing_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if have.total else os.O_TRUNC)
            passing("partial.unrecorded")
            fd = os.open(layout.partial(digest), flags, 0o644)
        except OSError as error:
            raise full(error) from error
        passing("partial.made")
        partial = cls(layout, digest, size, fd, have)
        try:
            os.ftruncate(fd, size)
        except (OSError, OverflowError) as error:
            if not have.total:
                partial.drop()
            partial.close()
            raise full(error) from error
        return partial

    def write(self, offset: int, content: bytes | memoryview) -> None:
        """Put ``content`` at ``offset``. Raises StoreFull; what was written before it stays."""
        try:
            rest = memoryview(content)
            with self._writing:  # the kernel lets one write at a time anyway, and makes the others spin for it
                while rest:
                    written = os.pwrite(self.fd, rest, offset)
                    offset += written
                    rest = rest[written:]
        except OSError as error:
            raise full(error) from error

    def record(self, have: RangeSet) -> None:
        """Make the bytes of ``have`` durable, then write down that they are. Blocks on the disk."""
        said = {"size": self.size, "ranges": [[span.start, span.stop] for span in have]}
        record = self._layout.record(self.digest)
        new = record.with_suffix(".new")
        try:
            os.fdatasync(self.fd)
            new.write_text(json.dumps(said))
            passing("record.written")
            os.replace(new, record)
            passing("record.named")
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise full(error) from error

    def advance(self, front: int) -> None:
        """Hash on to ``front``, up to which every byte must be there. Blocks on the processor.

        Raises:
            BrokenStore: the bytes cannot be read back; somebody else has cut the file, or the disk fails.
        """
        buffer = memoryview(bytearray(min(_HASH_BYTES, max(1, front - self.hashed))))
        while self.hashed < front:
            try:
                count = os.preadv(self.fd, [buffer[: front - self.hashed]], self.hashed)
            except OSError as error:
                raise BrokenStore(f"cannot read back {self.digest.short}: {error.strerror}") from error
            if not count:
                raise BrokenStore(f"cannot read back {self.digest.short}: its file ends at {self.hashed}")
            self._sha256.update(buffer[:count])
            self.hashed += count

    def prove(self) -> None:
        """Raise DigestMismatch unless all of it is hashed and is what its name says."""
        got = Digest(self._sha256.hexdigest())
        if self.hashed != self.size or got != self.digest:
            raise DigestMismatch(self.digest, got)

    def publish(self) -> None:
        """Give the proven bytes the blob's name: the one gate into ``blobs/``. Blocks on the disk.

        Raises:
            DigestMismatch: they are not proven; nothing was published.
            StoreFull: the disk would not take them.
        """
        self.prove()
        try:
            os.fsync(self.fd)
            passing("publish.durable")
            self._only_read()
            self._layout.share(self.fd)
            passing("publish.read_only")
            os.replace(self._layout.partial(self.digest), self._layout.blob(self.digest))
            passing("publish.named")
            sync_folder(self._layout.blobs)
            passing("publish.done")
        except OSError as error:
            raise full(error) from error
        with suppress(OSError):
            self._layout.record(self.digest).unlink(missing_ok=True)
        passing("publish.unrecorded")

    def _only_read(self) -> None:
        """Let the descriptor write no more: a thread that was given up must not reach into a proven blob."""
        reading = os.open(self._layout.partial(self.digest), os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(reading, self.fd, inheritable=False)
        os.close(reading)

    def drop(self) -> None:
        """Throw the bytes away. The descriptor stays open for those who still read."""
        for path in (self._layout.record(self.digest), self._layout.partial(self.digest)):
            with suppress(OSError):
                path.unlink(missing_ok=True)
            passing("partial.dropped")

    def close(self) -> None:
        """Close the descriptor; what is recorded stays for the next ``open``."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _recorded(layout: Layout, digest: Digest, size: int) -> RangeSet:
    """What a former process wrote down, if it still fits: a file of this size with these ranges in it."""
    try:
        said = json.loads(layout.record(digest).read_bytes())
        pairs = [(start, stop) for start, stop in said["ranges"]]
        whole = all(type(number) is int and 0 <= number <= size for pair in pairs for number in pair)
        if whole and said["size"] == size == os.stat(layout.partial(digest), follow_symlinks=False).st_size:
            return RangeSet(ByteRange(start, stop) for start, stop in pairs)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return RangeSet()


def tidy(layout: Layout) -> None:
    """Remove what nobody can go on with: a record without bytes, bytes without a record, what is neither."""
    kept: set[Path] = set()
    for path in layout.partials.glob("*.json"):
        with suppress(ValueError, OSError):
            digest = Digest.parse(f"sha256:{path.stem}")
            size = os.stat(layout.partial(digest)).st_size
            if not layout.blob(digest).exists() and _recorded(layout, digest, size).total:
                kept |= {layout.partial(digest), layout.record(digest)}
    for path in layout.partials.iterdir():
        if path not in kept:
            with suppress(OSError):
                path.unlink()
            passing("recover.removed")
