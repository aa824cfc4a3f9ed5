"""Those who read a fill."""

import asyncio
import os
from collections.abc import Callable, Hashable
from typing import Protocol, Self

from mirror.store import Partial


class Readable(Protocol):
    """What a reader needs of a fill."""

    partial: Partial
    readers: int
    wanted: int

    async def readable(self, reader: "FillReader", offset: int) -> int:
        """Wait until the byte at ``offset`` may be read; return up to where."""


class FillReader:
    """One reader of a fill, with a descriptor of its own: the bytes stay readable when the fill has ended."""

    def __init__(self, fill: Readable) -> None:
        self._fill = fill
        self.fd = os.dup(fill.partial.fd)
        fill.readers += 1
        fill.wanted += 1

    async def readable(self, offset: int) -> int:
        """Wait for the byte at ``offset``; return up to where may be read. Raises as Fill.readable does."""
        return await self._fill.readable(self, offset)

    def close(self) -> None:
        """Leave; the fill goes on or not as its settings say."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._fill.readers -= 1
            self._fill.wanted -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Waiters:
    """The readers of one fill that wait for a byte, each for one."""

    def __init__(self) -> None:
        self._arrivals: dict[Hashable, tuple[int, asyncio.Future[None]]] = {}

    async def wait(self, reader: Hashable, offset: int) -> None:
        """Wait until told that there is news of the byte at ``offset``."""
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals[reader] = (offset, arrival)
        try:
            await arrival
        finally:
            del self._arrivals[reader]

    def tell(self, whom: Callable[[int], bool] = lambda _: True) -> None:
        """Have those who wait look again, where ``whom`` holds for their offset."""
        for offset, arrival in self._arrivals.values():
            if not arrival.done() and whom(offset):
                arrival.set_result(None)
