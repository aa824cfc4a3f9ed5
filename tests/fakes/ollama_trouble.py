"""What goes wrong with a fake Ollama on demand, and what it was asked."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class Trouble(StrEnum):
    """What can go wrong."""

    STATUS = "status"
    """The answer is ``status`` with the error ``text``, in Ollama's own shape."""
    HOLD = "hold"
    """Nothing of an answer comes until it is let go."""
    CUT = "cut"
    """A connection reset after ``after`` lines."""
    ERROR = "error"
    """An error line ``text`` in place of what comes after ``after`` lines; before the first one a status 500."""


@dataclass(frozen=True, kw_only=True)
class Set:
    """One trouble for the next ``times`` requests whose path begins with ``path``; None is always."""

    what: Trouble
    path: str = "/"
    after: int = 0
    status: int = 500
    text: str = "the runner has stopped"
    times: int | None = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``POST /faults`` takes: an object with these fields."""
        said = json.loads(text)
        return cls(**{**said, "what": Trouble(said["what"])})


@dataclass
class Asked:
    """A request: what came, and how it ended.

    ``raw_path`` is as it was written, with its query; ``left``: its client had gone before the answer had.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    raw_path: str = ""
    body: bytes = b""
    status: int | None = None
    left: bool = False


@dataclass
class Troubles:
    """Those that are set, the requests so far, and a way to wait for the next thing that happens."""

    asked: list[Asked] = field(default_factory=list)
    remembers: int | None = None
    """About how many requests are kept; all of them where it is None."""
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    _set: list[tuple[Set, int | None]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, what: Trouble, path: str = "/", *, after: int = 0, status: int = 500, times: int | None = 1) -> None:
        """Set one more."""
        self.put(Set(what=what, path=path, after=after, status=status, times=times))

    def put(self, one: Set) -> None:
        """Set one more."""
        if one.what is Trouble.HOLD:
            self.let_go.clear()
        self._set.append((one, one.times))

    def note(self, one: Asked) -> None:
        """Keep a request; a fake that is to stand for hours forgets the older half of too many."""
        if self.remembers is not None and len(self.asked) > 2 * self.remembers:
            del self.asked[: self.remembers]
        self.asked.append(one)
        self.tell()

    def clear(self) -> None:
        """End all of them, and let go what is held."""
        self._set.clear()
        self.let_go.set()

    def take(self, path: str) -> Set | None:
        """Use up one time of the first that is set for a request."""
        for at, (one, left) in enumerate(self._set):
            if path.startswith(one.path) and left != 0:
                self._set[at] = (one, None if left is None else left - 1)
                return one
        return None

    def of(self, path: str) -> list[Asked]:
        """The requests for a path."""
        return [one for one in self.asked if one.path == path]

    def tell(self) -> None:
        """Have every waiting condition looked at again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until a condition on the requests holds. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._changed.wait()
