"""A look each second at what tells nobody of itself, while somebody watches."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mirror.dispatch import Pool, Turns
from mirror.events import Events, Seen
from mirror.fill import Fills
from mirror.pulls import Queue, State
from mirror.store import Store
from mirror.web.turn_views import state_of
from mirror.web.views import fill_view

_LOOK_S = 1.0

View = Mapping[str, Any]


class Watch:
    """Publishes what has changed since the last look. For the event loop's thread; ``run`` it once.

    However many watch, there is one look; while nobody does there is none.
    """

    def __init__(
        self,
        events: Events,
        store: Store,
        fills: Fills,
        queue: Queue,
        turns: Turns,
        pool: Pool,
        prompts: Callable[[], View],
    ) -> None:
        """``prompts`` returns how many prompt jobs are under way, by state."""
        self._events = events
        self._store = store
        self._fills = fills
        self._queue = queue
        self._turns = turns
        self._pool = pool
        self._prompts = prompts
        self._seen: dict[tuple[str, str, str], View] = {}
        self._watchers = 0
        self._somebody = asyncio.Event()

    @property
    def watchers(self) -> int:
        """How many watch."""
        return self._watchers

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look while the context lasts."""
        self._watchers += 1
        self._seen.clear()  # who comes is told everything
        self._somebody.set()
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._somebody.clear()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._somebody.wait()
            self.look()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        """Publish what is another than at the last look; the first look publishes all."""
        now = {(topic, kind, key): said for topic, kind, key, said in self._found()}
        for at, said in now.items():
            if self._seen.get(at) != said:
                self._events.publish(Seen(at[0], at[1], said))
        self._seen = now

    def _found(self) -> Iterator[tuple[str, str, str, View]]:
        """Yield topic, kind, what it is about, and what is said of that."""
        yield "fills", "progress", "", {"fills": [fill_view(one, self._store) for one in self._fills.in_flight]}
        jobs = self._queue.jobs
        waiting = sum(job.state is State.PENDING for job in jobs)
        yield "pulls", "queue", "", {"waiting": waiting, "running": len(jobs) - waiting}
        yield "turns", "turns", "", {"waiting": self._turns.waiting, "running": sum(one.active for one in self._pool)}
        for one in self._pool:
            yield "nodes", "state", one.id, {"id": one.id, "state": state_of(one, self._pool)}
        yield "prompts", "prompts", "", self._prompts()
