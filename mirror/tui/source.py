"""The mirror that is looked at: asked now and then, listened to, told what its people want."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from mirror.client import AdminClient
from mirror.errors import ServerError
from mirror.tui.news import sentence
from mirror.tui.reading import Fill, Reading, fills, read
from mirror.tui.speeds import Speeds

_SELDOM_S = 5.0
_SHARE = 20
_UNHEARD_S = 2.0
_NOT_TOLD = 404
_REFUSED = (401, 403)

View = dict[str, Any]


class Source:
    """One mirror. Looking changes nothing there. Every call raises ServerError; ``url`` is for people.

    Who waits is asked for at each look. The statistics and the store are work for a mirror of a thousand models, which
    lists them: they are asked for every five seconds, and what is on its way in is taken from the news. Of a mirror
    that tells none the statistics are asked for at each look, or as often as makes them a twentieth of its time.
    """

    def __init__(self, client: AdminClient, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._speeds = Speeds()
        self._fills: tuple[Fill, ...] = ()
        self._fills_at = float("-inf")
        self._told = False
        self._stats, self._store = View(), View()
        self._stats_at = self._store_at = float("-inf")
        self._stats_took_s = 0.0

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._client.url).rstrip("/")

    async def look(self) -> Reading:
        """Ask for everything that is shown. What this mirror has no answer to (404) is empty."""
        turns, queue = await _or_nothing(self._client.turns), await _or_nothing(self._client.queue)
        if self._now() - self._store_at >= _SELDOM_S:
            self._store, self._store_at = await _or_nothing(self._client.usage), self._now()
        if self._now() - self._stats_at >= self._stats_each_s:
            self._stats_at = self._now()
            self._stats = await _or_nothing(self._client.stats)
            self._stats_took_s = self._now() - self._stats_at
            if not self._told:
                self._rated(fills(self._stats))
        elif self._now() - self._fills_at > _UNHEARD_S:
            self._rated(self._fills)  # nothing came
        return replace(read(turns, queue, self._stats, self._store), fills=self._fills)

    async def news(self) -> AsyncGenerator[str, None]:
        """Yield sentences as things happen, until the mirror ends its answer."""
        try:
            async with self._client.events() as events:
                async for topic, said in events:
                    if topic == "dropped":  # a mirror says so where it was listened to too slowly
                        self._told = False
                    elif said.get("kind") == "progress":
                        self._told = True
                        self._rated(fills(said))
                    elif (text := sentence(said)) is not None:
                        yield text
        except ValueError as error:  # a line longer than any that we send
            raise ServerError(f"{self.url} tells no news that can be read: {error}", 0) from error
        finally:
            self._told = False

    @property
    def _stats_each_s(self) -> float:
        return _SELDOM_S if self._told else min(_SELDOM_S, _SHARE * self._stats_took_s)

    def _rated(self, found: tuple[Fill, ...]) -> None:
        self._fills_at = self._now()
        self._fills = self._speeds.rated(found, self._fills_at)

    async def block(self, user: str) -> str:
        """Serve a user no more; returns what to say of it, as all that follow."""
        await self._client.turns_act("block", user=user)
        return f"{user} is blocked"

    async def unblock(self, user: str) -> str:
        """Serve a user again."""
        await self._client.turns_act("unblock", user=user)
        return f"{user} is served again"

    async def drain(self, backend: str) -> str:
        """Give an Ollama nothing new."""
        await self._client.turns_act("drain", backend=backend)
        return f"{backend} gets nothing new"

    async def enable(self, backend: str) -> str:
        """Give an Ollama work again."""
        await self._client.turns_act("enable", backend=backend)
        return f"{backend} gets work again"

    async def hurry(self, job: str) -> str:
        """Fetch a queued model now."""
        view = await self._client.queue_act("now", job)
        return f"{view.get('job', {}).get('name', 'it')} waits for no window"


def refused(error: ServerError) -> bool:
    """Whether the mirror refuses: who looks shows no key that is good for that."""
    return error.status in _REFUSED


async def _or_nothing(ask: Callable[[], Awaitable[View]]) -> View:
    try:
        return await ask()
    except ServerError as error:
        if error.status == _NOT_TOLD:
            return {}
        raise
