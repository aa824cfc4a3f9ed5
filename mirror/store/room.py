"""How much the store may hold, what is promised of it, and what is lacking for more."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mirror.errors import StoreFull
from mirror.store.layout import Layout
from mirror.store.partial import full
from mirror.values import Digest


@dataclass(frozen=True, slots=True)
class Limits:
    """What the store may take, in bytes: ``size`` of its own (None: any), ``free`` that must stay on the disk."""

    size: int | None = None
    free: int = 0


@dataclass(frozen=True, slots=True)
class Shortage:
    """Bytes that would have to go: below the size limit, and on the disk. Either may be 0, both are not."""

    size: int
    free: int


class Promise:
    """Room for blobs on their way in, until they are here or it is closed. Use it as a context manager."""

    def __init__(self, room: "Room", blobs: Mapping[Digest, int]) -> None:
        self._room = room
        self._blobs = dict(blobs)
        self._landed: set[Digest] = set()

    def landed(self, digest: Digest) -> None:
        """All of a blob's bytes are on the disk, though it has not its name yet: they need no more of it."""
        self._landed.add(digest)

    def close(self) -> None:
        """Give back what is left of it; more than once is harmless."""
        self._room.close(self)

    def coming(self) -> Iterator[tuple[Digest, int, bool]]:
        """Yield digest, size and whether the bytes have still to get to the disk."""
        for digest, size in self._blobs.items():
            yield digest, size, digest not in self._landed

    def kept(self, digest: Digest) -> None:
        """A blob is among the proven ones, and counted there."""
        self._blobs.pop(digest, None)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._blobs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Room:
    """Counts what is here and what is promised against the limits. For the event loop's thread.

    Looks at the folder of partials and at the file system, which is quick: there are never many partials.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._promises: dict[int, Promise] = {}
        self.limits: Callable[[], Limits] = Limits
        self.proven = 0
        """Bytes of proven blobs; kept up by the Store."""

    @property
    def coming(self) -> dict[Digest, int]:
        """What is promised room, with sizes in bytes."""
        return {digest: size for promise in self._promises.values() for digest, size, _ in promise.coming()}

    def promised(self, digest: Digest) -> bool:
        """Whether a blob is on its way in, or is about to be."""
        return any(digest in promise for promise in self._promises.values())

    def promise(self, blobs: Mapping[Digest, int]) -> Promise:
        """Set room aside for blobs of these sizes in bytes; what is promised already is not set aside twice.

        Raises:
            StoreFull: there is none.
        """
        short = self.shortage(blobs)
        if short is not None:
            raise StoreFull(self._said(sum(blobs.values()), short))
        promise = Promise(self, blobs)
        self._promises[id(promise)] = promise
        return promise

    def close(self, promise: Promise) -> None:
        """Forget a promise; called by Promise only."""
        self._promises.pop(id(promise), None)

    def arrived(self, digest: Digest, size: int) -> None:
        """A blob of so many bytes is now among the proven ones."""
        self.proven += size
        for promise in self._promises.values():
            promise.kept(digest)

    def shortage(self, blobs: Mapping[Digest, int]) -> Shortage | None:
        """Return what is lacking to promise room for ``blobs`` as well; None when there is enough.

        Raises:
            StoreFull: the file system cannot be asked.
        """
        if not blobs.keys() - self.coming.keys():
            return None
        limits = self.limits()
        partial = self.partials()
        coming, to_write = dict(blobs), dict(blobs)
        for promise in self._promises.values():
            for digest, size, unwritten in promise.coming():
                coming[digest] = size
                to_write[digest] = size if unwritten else 0
        here = self.proven + self.aside() + sum(size for digest, size in partial.items() if digest not in coming)
        over = max(0, here + sum(coming.values()) - limits.size) if limits.size is not None else 0
        still = sum(max(0, size - partial.get(digest, 0)) for digest, size in to_write.items())
        lacking = max(0, limits.free + still - self.free())
        return Shortage(over, lacking) if over or lacking else None

    def partials(self) -> dict[Digest, int]:
        """Return how many bytes each unfinished blob takes on the disk; holes in a sparse file take none."""
        found = {}
        with suppress(OSError), os.scandir(self._layout.partials) as entries:
            for entry in entries:
                with suppress(ValueError, OSError):
                    found[Digest.parse(f"sha256:{entry.name}")] = entry.stat().st_blocks * 512
        return found

    def aside(self) -> int:
        """Return the bytes of what was put aside as no blob."""
        found = 0
        with suppress(OSError), os.scandir(self._layout.quarantine) as entries:
            for entry in entries:
                with suppress(OSError):
                    found += entry.stat().st_size
        return found

    def free(self) -> int:
        """Return the bytes that the file system has left for us. Raises StoreFull."""
        try:
            found = os.statvfs(self._layout.partials)
        except OSError as error:
            raise full(error) from error
        return found.f_bavail * found.f_frsize

    def capacity(self) -> int:
        """Return the bytes of the whole file system. Raises StoreFull."""
        try:
            found = os.statvfs(self._layout.partials)
        except OSError as error:
            raise full(error) from error
        return found.f_blocks * found.f_frsize

    def _said(self, asked: int, short: Shortage) -> str:
        if short.size:
            return f"no room for {asked} bytes: the store would pass its limit by {short.size}"
        return f"no room for {asked} bytes: the disk lacks {short.free}"
