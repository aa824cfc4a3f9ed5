"""Comparing a tar with what is said of it, byte by byte as it comes. Pure."""

from collections.abc import Iterator
from hashlib import sha256

from mirror.bundles.members import Member, Members
from mirror.errors import BadBundle


class Proof:
    """Takes a tar in pieces and says where it is not the one that ``members`` describe.

    ``start`` is where the pieces begin: the offset of a member, or their end. ``at`` is how far the tar was right,
    ``whole`` where the last member ends that was right to its end.
    """

    def __init__(self, members: Members, start: int = 0) -> None:
        self.at = start
        self.whole = start
        self._parts = _parts(members, start)
        self._part: _Literal | _Content = _Literal(b"", "", start)

    def feed(self, piece: bytes) -> None:
        """Compare the next bytes.

        Raises:
            BadBundle: they are not what they should be. Nothing can be fed after it.
        """
        rest = memoryview(piece)
        while rest:
            while not self._part.left:
                self._next_part()
            part = rest[: self._part.left]
            self._part.feed(part)
            self.at += len(part)
            rest = rest[len(part) :]
        while not self._part.left and self._next_part(at_end=True):
            pass

    def _next_part(self, *, at_end: bool = False) -> bool:
        """Go on to the next part once this one has all its bytes; return whether there is one."""
        self._part.close()
        self.whole = max(self.whole, self._part.whole)
        following = next(self._parts, None)
        if following is not None:
            self._part = following
        elif not at_end:
            raise BadBundle(f"the tar goes on after its end at byte {self.at}")
        return following is not None


class _Literal:
    """Bytes that are known. ``whole`` is where a member ends with them, 0 where none does."""

    def __init__(self, expected: bytes, path: str, whole: int = 0) -> None:
        self._expected = memoryview(expected)
        self._path = path
        self.whole = whole

    @property
    def left(self) -> int:
        return len(self._expected)

    def feed(self, part: memoryview) -> None:
        if part != self._expected[: len(part)]:
            raise BadBundle(f"the header or padding of {self._path} is not the one that was announced")
        self._expected = self._expected[len(part) :]

    def close(self) -> None:
        """Nothing is left to compare."""


class _Content:
    """A member's content, of which the hash is known."""

    whole = 0

    def __init__(self, member: Member) -> None:
        self._member = member
        self._hashed = sha256()
        self.left = member.size

    def feed(self, part: memoryview) -> None:
        self._hashed.update(part)
        self.left -= len(part)

    def close(self) -> None:
        if self._hashed.hexdigest() != self._member.digest.hex:
            raise BadBundle(f"{self._member.path} came with other bytes than were announced")


def _parts(members: Members, start: int) -> Iterator[_Literal | _Content]:
    for member in members:
        if member.offset >= start:
            yield _Literal(member.head, member.path)
            yield _Content(member)
            yield _Literal(bytes(member.padding), member.path, member.end)
    yield _Literal(bytes(members.total - members.end), "the end")
