"""``/mirror/v1/events``: the news as server-sent events (WHATWG HTML, "Server-sent events")."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from mirror.events import Events, Subscription
from mirror.fill import Admission
from mirror.web.event_views import TOLD, TOPICS, told
from mirror.web.hiding import Hidden, hidden_from
from mirror.web.problems import answering, problem
from mirror.web.requests import BadRequest
from mirror.web.watch import Watch

_MOST_WATCHERS = 256
_MOST_UNREAD = 512
_STILL_HERE_S = 15.0
_STUCK_S = 30.0
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventsFace:
    """Tells what happens as it happens.

    A client that reads slowly misses the oldest of what it has not read, and is told how many; one that does not read
    at all is let go. Neither holds up anybody.
    """

    def __init__(self, events: Events, watch: Watch, admission: Admission) -> None:
        self._events = events
        self._watch = watch
        self._admission = admission
        self._tellers: set[asyncio.Task[Any]] = set()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the route."""
        return [web.get("/mirror/v1/events", answering(self.tell), allow_head=False)]

    async def tell(self, request: web.Request) -> web.StreamResponse:
        """Answer with events of the topics in ``?topics=fills,pulls``, of all where none is named."""
        topics = _topics(request)
        if self._watch.watchers >= _MOST_WATCHERS:
            return problem(503, "Service Unavailable", f"{_MOST_WATCHERS} watch already; try again later")
        response = web.StreamResponse(headers=_HEADERS)
        with (
            suppress(ConnectionError),
            self._telling(),
            self._events.subscribe(_MOST_UNREAD, *TOLD) as news,
            self._watch.watching(),
        ):
            await response.prepare(request)
            await _send(response, "retry: 3000\n\n")
            await _follow(response, news, topics, lambda: hidden_from(request, self._admission))
        return response

    async def end(self, _: web.Application) -> None:
        """End every answer, so that a mirror that stops need not wait for those who watch."""
        for task in self._tellers:
            task.cancel()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an answer is given in a task")
        self._tellers.add(task)
        try:
            yield
        finally:
            self._tellers.discard(task)


def _topics(request: web.Request) -> frozenset[str]:
    said = request.query.get("topics", "")
    topics = frozenset(filter(None, said.split(",")))
    if topics - frozenset(TOPICS):
        raise BadRequest(said, f"topics={','.join(TOPICS)}, or some of them")
    return topics or frozenset(TOPICS)


async def _follow(
    response: web.StreamResponse, news: Subscription, topics: frozenset[str], hiding: Callable[[], Hidden]
) -> None:
    dropped = 0
    while True:
        try:
            async with asyncio.timeout(_STILL_HERE_S):
                event = await anext(news)
        except TimeoutError:
            await _send(response, ": still here\n\n")
            continue
        if news.dropped > dropped:
            await _send(response, _event("dropped", {"count": news.dropped - dropped}))
            dropped = news.dropped
        found = told(event, hiding())  # the rules may be others than when it began
        if found is not None and found[0] in topics:
            await _send(response, _event(*found))


def _event(topic: str, said: dict[str, Any]) -> str:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return f"event: {topic}\ndata: {json.dumps({'at': at, **said})}\n\n"


async def _send(response: web.StreamResponse, text: str) -> None:
    """Send, once the client has room for it. Raises ConnectionError: it does not read."""
    try:
        async with asyncio.timeout(_STUCK_S):
            await response.write(text.encode())
    except TimeoutError:
        raise ConnectionAbortedError(f"nothing was read for {_STUCK_S:g} s") from None
