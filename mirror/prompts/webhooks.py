"""Tells the URLs that prompt jobs name how those ended, at least once. Network out only."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import aiohttp
import structlog

from mirror.errors import ForbiddenAddress, UpstreamUnavailable
from mirror.prompts.prompt import InvalidPrompt, Prompt, PromptsUnusable, State
from mirror.prompts.prompts import Prompts
from mirror.prompts.reading import status_view
from mirror.prompts.untold import Ends, Untold
from mirror.pulls import Clock, Posting
from mirror.upstream.addresses import PublicAddresses

log = structlog.get_logger(__name__)

_WAITS_S = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0)
_AT_ONCE, _OF_ONE_HOST = 16, 2
_AGAIN_S = 5.0
_RESOLVING_S = 5.0


class Webhooks:
    """Posts each end until something answers 2xx, or there are no waits left. For the event loop's thread.

    What is to be told is in the database from the moment of the end on: what a process that died had not noted as told
    is told by the next. A receiver in trouble holds up nobody but itself. ``run`` it once.
    """

    def __init__(
        self,
        prompts: Prompts,
        ends: Ends,
        posting: Posting,
        addresses: PublicAddresses,
        clock: Clock,
        *,
        waits_s: Sequence[float] = _WAITS_S,
    ) -> None:
        """``waits_s`` are the seconds before each further try."""
        self._prompts = prompts
        self._ends = ends
        self._posting = posting
        self._addresses = addresses
        self._clock = clock
        self._waits_s = waits_s
        self._tasks: dict[str, str] = {}
        self._tried_since: set[str] = set()
        self._changed = asyncio.Event()
        prompts.watchers.append(self._hear)

    async def check(self, url: str) -> None:
        """Raise InvalidPrompt for a URL that leads into a private network. What has no address yet is let through."""
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(_RESOLVING_S):
                await self._addresses.check(parts.hostname or "", _port(url))
        except ForbiddenAddress as error:
            raise InvalidPrompt(
                parts.netloc, f"webhook: a public host, or one of prompts.webhook_hosts ({error})"
            ) from None
        except (UpstreamUnavailable, TimeoutError):
            return

    async def run(self) -> None:
        """Tell what ends, until cancelled."""
        async with self._session() as session, asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                self._tried_since.clear()
                now = self._clock.now()
                untold = await self._untold(now)
                for one in self._due(untold, now):
                    self._tasks[one.id] = _host(one)
                    group.create_task(self._tell(session, one), name=f"webhook of {one.id}")
                await self._wait(min((one.at for one in untold if one.at > now), default=None))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        try:
            async with self._posting.session(self._addresses) as session:
                yield session
        finally:
            await self._addresses.close()

    def _hear(self, prompt: Prompt) -> None:
        if prompt.webhook is not None:
            self._changed.set()

    async def _untold(self, now: datetime) -> list[Untold]:
        try:
            return await self._ends.untold()
        except PromptsUnusable as error:
            log.warning("ends of prompts not told", problem=str(error))
            return [Untold("", "", 0, now + timedelta(seconds=_AGAIN_S))]

    def _due(self, untold: Sequence[Untold], now: datetime) -> list[Untold]:
        """Return those that are to be told now, a few at once and fewer of one receiver.

        What was tried while they were read is not what was read any more.
        """
        hosts = Counter(self._tasks.values())
        found: list[Untold] = []
        for one in untold:
            free = len(self._tasks) + len(found) < _AT_ONCE and hosts[_host(one)] < _OF_ONE_HOST
            if one.at <= now and free and one.id not in self._tasks and one.id not in self._tried_since:
                hosts[_host(one)] += 1
                found.append(one)
        return found

    async def _wait(self, instant: datetime | None) -> None:
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(self._changed.wait()), group.create_task(self._clock.until(instant))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()

    async def _tell(self, session: aiohttp.ClientSession, one: Untold) -> None:
        """Try once, and note what came of it."""
        try:
            await self._told(session, one)
        except PromptsUnusable as error:
            log.warning("end of a prompt not told", id=one.id, problem=str(error))
            await asyncio.sleep(_AGAIN_S)
        except Exception:  # the edge of a delivery: the others are told
            log.exception("end of a prompt not told", id=one.id)
            await asyncio.sleep(_AGAIN_S)
        finally:
            del self._tasks[one.id]
            self._tried_since.add(one.id)
            self._changed.set()

    async def _told(self, session: aiohttp.ClientSession, one: Untold) -> None:
        prompt = await self._prompts.find(one.id)
        if prompt is None:
            return
        problem = await self._tried(session, one, prompt)
        said = {"id": one.id, "host": _host(one), "problem": problem}
        if problem is None or one.tries >= len(self._waits_s):
            await self._ends.done(one)
            if problem is not None:
                log.warning("end of a prompt not told", **said)
            return
        await self._ends.later(one, self._clock.now() + timedelta(seconds=self._waits_s[one.tries]))
        log.info("end of a prompt not told yet", **said)

    async def _tried(self, session: aiohttp.ClientSession, one: Untold, prompt: Prompt) -> str | None:
        try:
            await self._addresses.check(urlsplit(one.url).hostname or "", _port(one.url))
        except (ForbiddenAddress, UpstreamUnavailable) as error:
            return str(error)
        event = f"prompt.{prompt.state}"
        view = {"event": event, **status_view(prompt)}
        if prompt.state is State.COMPLETED:
            view["result"] = await self._prompts.result(prompt)
        body = await asyncio.to_thread(lambda: json.dumps(view).encode())
        return await self._posting.post(session, one.url, event, one.id, body)


def _host(one: Untold) -> str:
    return urlsplit(one.url).netloc


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)
