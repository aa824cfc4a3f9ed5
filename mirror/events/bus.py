"""Publishing, and two ways to listen: counted at once, or read when there is time."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, get_args

from mirror.events.news import Event

Tap = Callable[[Event], None]


class Subscription:
    """The news since it was taken, oldest first. Bounded: when full, the oldest is dropped and counted."""

    def __init__(self, limit: int) -> None:
        self._waiting: deque[Event] = deque(maxlen=limit)
        self._some = asyncio.Event()
        self.dropped = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        return self._waiting.popleft()

    def put(self, event: Event) -> None:
        """Add ``event``; called by Events only."""
        self.dropped += len(self._waiting) == self._waiting.maxlen
        self._waiting.append(event)
        self._some.set()


class Events:
    """The one board that news is pinned to. For the event loop's thread only."""

    def __init__(self) -> None:
        self._taps: dict[type, list[Tap]] = {kind: [] for kind in get_args(Event)}
        self._subscriptions: dict[Subscription, tuple[type, ...]] = {}

    def publish(self, event: Event) -> None:
        """Tell every tap at once and every subscription in its own time. Never waits."""
        for tap in self._taps[type(event)]:
            tap(event)
        for subscription, kinds in self._subscriptions.items():
            if not kinds or type(event) in kinds:
                subscription.put(event)

    def tap(self, tap: Tap, *kinds: type) -> None:
        """Call ``tap`` with all news of these kinds (all there are, if none is named) from now on.

        It must be quick, must not raise, and misses nothing.
        """
        for kind in kinds or self._taps:
            self._taps[kind].append(tap)

    @contextmanager
    def subscribe(self, limit: int = 1000, *kinds: type) -> Iterator[Subscription]:
        """Yield a subscription to news of these kinds (all there are, if none is named), at most ``limit`` unread."""
        subscription = Subscription(limit)
        self._subscriptions[subscription] = kinds
        try:
            yield subscription
        finally:
            del self._subscriptions[subscription]
