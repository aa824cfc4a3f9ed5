"""Tells a URL how pulls end: one POST of JSON for each, signed if there is a secret. Network out only."""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import aiohttp
import structlog

from mirror.events import Events, PullEnded
from mirror.pulls.posting import TIMEOUT_S, Posting

log = structlog.get_logger(__name__)

TOLD = frozenset({"completed", "failed", "refused"})
"""The ends that are told; who takes a job back knows of it."""
_WAITS_S = (1.0, 5.0, 30.0, 120.0)
_MOST = 1000


class Webhook:
    """Posts one end after the other, in order. For the event loop's thread; ``run`` it once.

    An end is tried once and then after each of the waits, until something answers 2xx. What ends meanwhile is held in
    memory: above the bound the oldest is dropped, and the log says so. Nobody waits for it.
    """

    def __init__(
        self,
        url: str,
        secret: str | None,
        events: Events,
        *,
        waits_s: Sequence[float] = _WAITS_S,
        timeout_s: float = TIMEOUT_S,
        most: int = _MOST,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``waits_s`` are the seconds before each further try, ``timeout_s`` is for one, ``most`` ends are held."""
        self._url = url
        self._host = urlsplit(url).netloc
        self._posting = Posting(secret, timeout_s=timeout_s, now=now)
        self._events = events
        self._waits_s = waits_s
        self._most = most

    async def run(self) -> None:
        """Post what ends from now on, until cancelled; what was not posted by then is lost."""
        dropped = 0
        with self._events.subscribe(self._most, PullEnded) as ends:
            async with self._posting.session() as session:
                async for end in ends:
                    if ends.dropped > dropped:
                        log.warning("ends of pulls not told", host=self._host, dropped=ends.dropped - dropped)
                        dropped = ends.dropped
                    if isinstance(end, PullEnded) and end.outcome in TOLD:
                        await self._tell(session, end)

    async def _tell(self, session: aiohttp.ClientSession, end: PullEnded) -> None:
        """Try until it is taken, or there are no waits left."""
        event, delivery, body = f"pull.{end.outcome}", secrets.token_hex(16), _body(end)
        said = {"host": self._host, "pull": end.name.short, "delivery": delivery}
        for wait_s in (*self._waits_s, None):
            try:
                problem = await self._posting.post(session, self._url, event, delivery, body)
            except Exception:  # the edge of a delivery: the next ends are told, and the service goes on
                log.exception("end of a pull not told", **said)
                return
            if problem is None:
                return
            if wait_s is None:
                log.warning("end of a pull not told", **said, problem=problem)
                return
            log.info("end of a pull not told yet", **said, problem=problem)
            await asyncio.sleep(wait_s)


def _body(end: PullEnded) -> bytes:
    view = {
        "event": f"pull.{end.outcome}",
        "id": end.id,
        "name": end.name.short,
        "size": end.size,
        "requesters": list(end.requesters),
        "tries": end.tries,
        "error": end.error,
        "created_at": end.created_at.isoformat(timespec="seconds"),
        "finished_at": end.finished_at.isoformat(timespec="seconds"),
    }
    return json.dumps(view).encode()
