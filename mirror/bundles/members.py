"""Where everything lies in a bundle's tar, known before a byte of it is written. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from mirror.bundles.places import place
from mirror.bundles.tar import BLOCK, RECORD, header, padding
from mirror.errors import BadBundle
from mirror.values import Digest, InvalidDigest

FORMAT = 1
"""Of the tar and of what is said about it; raised when an older mirror would read it wrong."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a tar: ``size`` in bytes without padding, ``offset`` where its header begins."""

    path: str
    digest: Digest
    size: int
    offset: int

    @property
    def head(self) -> bytes:
        """What comes before its content."""
        return header(self.path, self.size)

    @property
    def padding(self) -> int:
        """How many zero bytes follow its content."""
        return padding(self.size)

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.offset + len(self.head) + self.size + self.padding


@dataclass(frozen=True, slots=True)
class Members:
    """Every file of a tar in order; ``end`` is where the last one ends, ``total`` the bytes of the whole tar.

    It is all that is needed to resume and to check a tar, so that a far mirror can send it ahead (``describe``).
    """

    every: tuple[Member, ...]
    end: int
    total: int

    @classmethod
    def laid_out(cls, files: Iterable[tuple[str, Digest, int]]) -> Self:
        """Lay out files, given as path, digest and size, one after another."""
        every, end = [], 0
        for path, digest, size in files:
            every.append(Member(path, digest, size, end))
            end = every[-1].end
        closed = end + 2 * BLOCK
        return cls(tuple(every), end, closed + padding(closed, RECORD))

    def describe(self) -> dict[str, object]:
        """Return its JSON form, which ``parse`` reads."""
        said = [{"path": one.path, "digest": str(one.digest), "size": one.size} for one in self.every]
        return {"format": FORMAT, "total": self.total, "members": said}

    @classmethod
    def parse(cls, said: object) -> Self:
        """Read what ``describe`` returned, here or elsewhere.

        Raises:
            BadBundle: it is something else, or of a newer format.
        """
        if not isinstance(said, dict) or not isinstance(said.get("members"), list):
            raise BadBundle("this does not describe a bundle")
        require_format(said.get("format"))
        members = cls.laid_out(_file(one) for one in said["members"])
        if said.get("total") != members.total:
            raise BadBundle(f"a bundle of {said.get('total')} bytes is described whose members make {members.total}")
        return members

    def __iter__(self) -> Iterator[Member]:
        return iter(self.every)

    def __len__(self) -> int:
        return len(self.every)


def require_format(said: object) -> None:
    """Raise BadBundle unless ``said`` is the format this mirror knows."""
    if said != FORMAT:
        raise BadBundle(f"the bundle is of format {said!r:.40}; this mirror knows format {FORMAT}")


def sized(size: object) -> int:
    """Return ``size`` if it is a number of bytes. Raises BadBundle."""
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62:
        raise BadBundle(f"{size!r:.40} is no number of bytes")
    return size


def _file(said: object) -> tuple[str, Digest, int]:
    if not isinstance(said, dict):
        raise BadBundle("a bundle is described by something else than its files")
    path, digest = said.get("path"), said.get("digest")
    if not isinstance(path, str) or not isinstance(digest, str) or place(path) is None:
        raise BadBundle(f"{path!r:.80} is no file of a bundle")
    try:
        return path, Digest.parse(digest), sized(said.get("size"))
    except InvalidDigest as error:
        raise BadBundle(f"{path!r}: {error}") from error
