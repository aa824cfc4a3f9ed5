"""Tells a URL how pulls end: one POST of JSON for each, signed if there is a secret. Network out only."""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import aiohttp
import structlog

from mirror import __version__
from mirror.events import Events, PullEnded
from mirror.upstream.tls import client_context

log = structlog.get_logger(__name__)

TOLD = frozenset({"completed", "failed", "refused"})
"""The ends that are told; who takes a job back knows of it."""
_WAITS_S = (1.0, 5.0, 30.0, 120.0)
_TIMEOUT_S = 10.0
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
        timeout_s: float = _TIMEOUT_S,
        most: int = _MOST,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``waits_s`` are the seconds before each further try, ``timeout_s`` is for one, ``most`` ends are held."""
        self._url = url
        self._host = urlsplit(url).netloc
        self._secret = secret
        self._events = events
        self._waits_s = waits_s
        self._timeout_s = timeout_s
        self._most = most
        self._now = now

    async def run(self) -> None:
        """Post what ends from now on, until cancelled; what was not posted by then is lost."""
        dropped = 0
        with self._events.subscribe(self._most, PullEnded) as ends:
            async with self._session() as session:
                async for end in ends:
                    if ends.dropped > dropped:
                        log.warning("ends of pulls not told", host=self._host, dropped=ends.dropped - dropped)
                        dropped = ends.dropped
                    if isinstance(end, PullEnded) and end.outcome in TOLD:
                        await self._tell(session, end)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=client_context()),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"User-Agent": f"ollama-mirror/{__version__}", "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
        )

    async def _tell(self, session: aiohttp.ClientSession, end: PullEnded) -> None:
        """Try until it is taken, or there are no waits left."""
        event, delivery, body = f"pull.{end.outcome}", secrets.token_hex(16), _body(end)
        said = {"host": self._host, "pull": end.name.short, "delivery": delivery}
        for wait_s in (*self._waits_s, None):
            try:
                problem = await self._post(session, event, delivery, body)
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

    async def _post(self, session: aiohttp.ClientSession, event: str, delivery: str, body: bytes) -> str | None:
        """Try once; return what went wrong, without what the URL may keep secret."""
        headers = {"X-Mirror-Event": event, "X-Mirror-Delivery": delivery, **self._signed(body)}
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as reply:
                return None if 200 <= reply.status < 300 else f"it answered {reply.status}"
        except TimeoutError:
            return f"no answer in {self._timeout_s:g} s"
        except ValueError:
            return "the address cannot be used"
        except (aiohttp.ClientError, OSError) as error:
            return str(error) or type(error).__name__

    def _signed(self, body: bytes) -> dict[str, str]:
        if self._secret is None:
            return {}
        timestamp = str(int(self._now()))
        signature = hmac.new(self._secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        return {"X-Mirror-Timestamp": timestamp, "X-Mirror-Signature": f"sha256={signature}"}


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
