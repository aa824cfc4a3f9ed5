"""Turns for what may wait until nobody else wants one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from mirror.dispatch.pool import Pool, Wanted
from mirror.dispatch.turns import Turn, Turns


@dataclass(eq=False, slots=True)
class _Waiting:
    user: str
    wanted: Wanted
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class IdleTurns:
    """Gives turns while nobody waits in the fair queue and a slot is free, to at most ``most`` at once.

    Of those that wait, the one goes first whose user was served the longest time ago. Nothing is taken back from who
    has a turn. For the event loop's thread.
    """

    def __init__(self, turns: Turns, pool: Pool, most: int) -> None:
        self._turns = turns
        self._pool = pool
        self._most = most
        self._running = 0
        self._waiting: list[_Waiting] = []
        self._served: dict[str, int] = {}
        self._numbers = count(1)
        turns.idle = self._wake

    @asynccontextmanager
    async def turn(self, user: str, wanted: Wanted, cost: float) -> AsyncIterator[Turn]:
        """Wait for a turn, however long it takes, and have it while the context lasts. Raises as ``Turns.turn``."""
        await self._lull(user, wanted)
        # No await until the turn is had, or somebody else might have come in between.
        self._running += 1
        self._served[user] = next(self._numbers)
        try:
            async with self._turns.turn(user, wanted, cost) as turn:
                yield turn
        finally:
            self._running -= 1
            if not self._waiting:
                self._served.clear()  # in what order users were served matters to those who wait only
            self._wake()

    async def _lull(self, user: str, wanted: Wanted) -> None:
        one = _Waiting(user, wanted)
        self._waiting.append(one)
        try:
            while self._next() is not one:
                one.woken.clear()
                await one.woken.wait()
        finally:
            self._waiting.remove(one)
            if one.woken.is_set():
                self._wake()  # the news was for whoever can use it

    def _next(self) -> _Waiting | None:
        """Return who may go now; one that can run nowhere is to hear so."""
        if self._running >= self._most or self._turns.waiting:
            return None
        for one in sorted(self._waiting, key=lambda one: self._served.get(one.user, 0)):
            if self._pool.choose(one.wanted) is not None or not self._pool.possible(one.wanted):
                return one
        return None

    def _wake(self) -> None:
        if self._waiting and (one := self._next()) is not None:
            one.woken.set()
