"""The mirror that is looked at: asked now and then, listened to, told what its people want."""

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

from mirror.client import AdminClient
from mirror.errors import ServerError
from mirror.tui.news import sentence
from mirror.tui.reading import Reading, read
from mirror.tui.speeds import Speeds

_STORE_EACH_S = 5.0
_NOT_TOLD = 404
_REFUSED = (401, 403)


class Source:
    """One mirror. Looking changes nothing there. Every call raises ServerError; ``url`` is for people.

    The store is asked for every five seconds only: to say what it holds it reads its folders.
    """

    def __init__(self, client: AdminClient, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._speeds = Speeds()
        self._store: dict[str, Any] | None = None
        self._store_at = float("-inf")

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._client.url).rstrip("/")

    async def look(self) -> Reading:
        """Ask for everything that is shown. What this mirror has no answer to (404) is empty."""
        turns, queue = await _or_nothing(self._client.turns), await _or_nothing(self._client.queue)
        stats = await _or_nothing(self._client.stats)
        if self._now() - self._store_at >= _STORE_EACH_S:
            self._store, self._store_at = await _or_nothing(self._client.usage), self._now()
        reading = read(turns, queue, stats, self._store)
        return replace(reading, fills=self._speeds.rated(reading.fills, self._now()))

    async def news(self) -> AsyncGenerator[str, None]:
        """Yield sentences as things happen, until the mirror ends its answer."""
        try:
            async with self._client.events() as events:
                async for _, said in events:
                    if (text := sentence(said)) is not None:
                        yield text
        except ValueError as error:  # a line longer than any that we send
            raise ServerError(f"{self.url} tells no news that can be read: {error}", 0) from error

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


async def _or_nothing(ask: Callable[[], Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await ask()
    except ServerError as error:
        if error.status == _NOT_TOLD:
            return {}
        raise
    return found
