"""Tells the URLs that prompt jobs name how those ended, at least once. Network out only."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
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
from mirror.pulls import Clock, Posting, until_or
from mirror.upstream.addresses import PublicAddresses

log = structlog.get_logger(__name__)

_WAITS_S = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0)
_AT_ONCE, _OF_ONE_USER, _OF_ONE_HOST, _OF_ONE_RECEIVER = 16, 8, 6, 2
"""How many are told at the same time: in all, for one user, at one host, and at one port of it."""
_AGAIN_S = 5.0
_RESOLVING_S = 5.0


class Places:
    """How many tell at the same time, so that no user, host or receiver in trouble takes every place."""

    def __init__(self, telling: Iterable[Untold]) -> None:
        self._users, self._hosts, self._receivers = Counter[str](), Counter[str](), Counter[str]()
        for one in telling:
            self._take(one)

    def taken_by(self, one: Untold) -> bool:
        """Take a place; False where there is none for it."""
        free = (
            self._users.total() < _AT_ONCE
            and self._users[one.user] < _OF_ONE_USER
            and self._hosts[_name(one)] < _OF_ONE_HOST
            and self._receivers[_host(one)] < _OF_ONE_RECEIVER
        )
        if free:
            self._take(one)
        return free

    def _take(self, one: Untold) -> None:
        self._users[one.user] += 1
        self._hosts[_name(one)] += 1
        self._receivers[_host(one)] += 1


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
        self._tasks: dict[str, Untold] = {}
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
                due, again_at = await self._untold(now)
                for one in self._begun(due):
                    self._tasks[one.id] = one
                    group.create_task(self._tell(session, one), name=f"webhook of {one.id}")
                await until_or(self._clock, again_at, self._changed)

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

    async def _untold(self, now: datetime) -> tuple[list[Untold], datetime | None]:
        """Return what is due, and when to look again though nothing has changed."""
        try:
            return await self._ends.due(now), await self._ends.next_after(now)
        except PromptsUnusable as error:
            log.warning("ends of prompts not told", problem=str(error))
            return [], now + timedelta(seconds=_AGAIN_S)

    def _begun(self, due: Sequence[Untold]) -> list[Untold]:
        """Return those that are to be told now. What was tried while they were read is not what was read any more."""
        places = Places(self._tasks.values())
        return [
            one for one in due if one.id not in self._tasks and one.id not in self._tried_since and places.taken_by(one)
        ]

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


def _name(one: Untold) -> str:
    return urlsplit(one.url).hostname or ""


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)
