"""What running prompt jobs have said so far, for any number of readers, none of whom anybody waits for."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_A_PIECE = 64 << 10


@dataclass(eq=False, slots=True)
class Live:
    """One prompt job: what its try ``tries`` has said; 0 while none runs. ``changed`` is set, and replaced, with news.

    Read ``changed`` first, look, and wait for it then.
    """

    tries: int = 0
    length: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    readers: int = 0
    _pieces: list[str] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)

    def say(self, piece: str) -> None:
        """Append what came."""
        self._starts.append(self.length)
        self._pieces.append(piece)
        self.length += len(piece)
        self.tell()

    def since(self, start: int) -> str:
        """Return what was said from a character on, or the first of it where that is much."""
        if not 0 <= start < self.length:
            return ""
        first = bisect_right(self._starts, start) - 1
        skipped = start - self._starts[first]
        found: list[str] = [self._pieces[first][skipped : skipped + _A_PIECE]]
        if skipped + _A_PIECE < len(self._pieces[first]):
            return found[0]
        size, at = len(found[0]), first + 1
        while size < _A_PIECE and at < len(self._pieces):
            found.append(self._pieces[at])
            size, at = size + len(self._pieces[at]), at + 1
        return "".join(found)

    def whole(self) -> str:
        """Return all that was said."""
        return "".join(self._pieces)

    def begin(self, tries: int) -> None:
        """A try begins, and what an earlier one said counts no more."""
        self.tries, self.length = tries, 0
        self._pieces, self._starts = [], []
        self.tell()

    def tell(self) -> None:
        """Wake the readers."""
        self.changed.set()
        self.changed = asyncio.Event()


class Lives:
    """The prompt jobs that run or that somebody reads. For the event loop's thread."""

    def __init__(self) -> None:
        self._lives: dict[str, Live] = {}

    def tell(self) -> None:
        """Wake all readers."""
        for live in self._lives.values():
            live.tell()

    def begin(self, id_: str, tries: int) -> Live:
        """Return where a try is to say what comes."""
        live = self._lives.setdefault(id_, Live())
        live.begin(tries)
        return live

    def end(self, id_: str) -> None:
        """A try has ended, or something has become of the prompt job without one; the database says what."""
        live = self._lives.get(id_)
        if live is not None:
            live.begin(0)
            self._forget(id_, live)

    @contextmanager
    def reading(self, id_: str) -> Iterator[Live]:
        """Yield what is said, also where nothing is yet."""
        live = self._lives.setdefault(id_, Live())
        live.readers += 1
        try:
            yield live
        finally:
            live.readers -= 1
            self._forget(id_, live)

    def __len__(self) -> int:
        return len(self._lives)

    def _forget(self, id_: str, live: Live) -> None:
        if not live.readers and not live.tries:
            self._lives.pop(id_, None)
