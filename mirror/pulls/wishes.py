"""Asking for a model: whether it may be asked for at all, and if so into the queue."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from mirror.fill import Admission
from mirror.pulls.guards import Guards
from mirror.pulls.queue import Asked, Queue
from mirror.values import ModelName


@dataclass(frozen=True, slots=True)
class Wish:
    """One model that a user wants. ``who`` is kept as the one who asked, and may be ``limited`` to so many a day."""

    name: ModelName
    user: str
    who: str
    priority: int = 0
    at_once: bool = False
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """The way into the queue for everybody: programs, commands and pages."""

    queue: Queue
    guards: Guards
    admission: Admission
    now: Callable[[], datetime]
    one_by_one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def want(self, wish: Wish) -> Asked:
        """Take a wish.

        Raises:
            NotAllowed: the policy refuses the model by its name.
            AskedTooOften, StoreFull, QueueFull, QueueUnusable: nothing was queued.
        """
        self.admission.before(wish.name, wish.user)
        async with self.one_by_one:  # twenty at once must not all be the fifth of the day
            known = self.queue.of(wish.name)
            if known is None:
                self.guards.room()
            if wish.limited and (known is None or wish.who not in known.requesters):
                await self.guards.day(self.queue, wish.who, self.now())
            return await self.queue.ask(wish.name, wish.who, priority=wish.priority, at_once=wish.at_once)
