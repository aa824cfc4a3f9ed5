"""Heartbeats: a node looks at its Ollama every few seconds and tells the hub in time, or at once of other models."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import structlog

from mirror import __version__
from mirror.errors import BackendError
from mirror.hub.machine import Load, Machine, addresses_towards
from mirror.hub.node import MOST_MODELS, Heartbeat
from mirror.hub.settings import NodeSettings
from mirror.ollama import Ollama

log = structlog.get_logger(__name__)

_OLLAMA_S = 10.0
_HUB_S = 10.0
_AGAIN_S = 1.0
_LONGEST_ANSWER = 500


@dataclass(frozen=True, slots=True)
class Seen:
    """What an Ollama has on its disk and in its memory; nothing while it does not answer."""

    models: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    answers: bool = False


class Heart:
    """Sends the heartbeats of a node. For the event loop's thread; ``run`` it once, ``close`` it when done.

    A hub that does not take one is tried again after a second, then after twice as long, up to the interval. The log
    has a line when that begins and when it ends, and so for the Ollama.
    """

    def __init__(
        self,
        settings: NodeSettings,
        port: int,
        ollama: Ollama,
        machine: Machine,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._port = port
        self._ollama = ollama
        self._machine = machine
        self._clock = clock
        self._session = aiohttp.ClientSession(
            # A connection that was kept would be dead whenever the hub was started anew.
            connector=aiohttp.TCPConnector(force_close=True),
            timeout=aiohttp.ClientTimeout(total=_HUB_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._due_at = float("-inf")
        self._wait_s = 0.0
        self._told: Seen | None = None
        self._load = Load()
        self._ollama_version: str | None = None
        self._problems: dict[str, str | None] = {}

    async def close(self) -> None:
        """End every connection."""
        await self._session.close()

    async def run(self) -> None:
        """Look and tell until cancelled."""
        while True:
            try:
                await self._once()
            except Exception:  # the edge of a node: what nobody foresaw must not take the machine from the hub
                log.exception("heartbeat not sent")
                self._put_off()
            left_s = self._due_at - self._clock()
            await asyncio.sleep(max(0.0, min(self._settings.poll_s, left_s)))

    async def _once(self) -> None:
        seen = await self._look()
        if self._clock() < self._due_at and (self._told is None or self._told == seen):
            return
        problem = await self._post(await self._heartbeat(seen))
        self._note("hub", problem, at=self._settings.hub)
        if problem is None:
            self._told, self._wait_s = seen, 0.0
            self._due_at = self._clock() + self._settings.interval_s
        else:
            self._put_off()

    def _put_off(self) -> None:
        self._told = None
        self._wait_s = min(max(2 * self._wait_s, _AGAIN_S), self._settings.interval_s)
        self._due_at = self._clock() + self._wait_s

    async def _look(self) -> Seen:
        """Ask the Ollama what it has."""
        self._load = self._machine.load()
        try:
            async with asyncio.timeout(_OLLAMA_S):
                models = [one.name for one in await self._ollama.models()]
                loaded = [one.name for one in await self._ollama.running()]
                if self._ollama_version is None:
                    self._ollama_version = (await self._ollama.version())[:64]
        except (BackendError, TimeoutError) as error:
            self._ollama_version = None
            self._note("ollama", str(error) or f"no answer in {_OLLAMA_S:g} s", at=self._settings.ollama)
            return Seen()
        self._note("ollama", None, at=self._settings.ollama)
        return Seen(_bounded(models), _bounded(loaded), answers=True)

    async def _heartbeat(self, seen: Seen) -> Heartbeat:
        settings = self._settings
        ipv4, ipv6 = await addresses_towards(settings.hub)
        metadata: dict[str, object] = {"hostname": settings.hostname, "ollama": self._ollama_version}
        if gpus := await self._machine.gpus():
            metadata["gpus"] = gpus
        return Heartbeat(
            node_id=settings.node_id,
            port=self._port,
            ipv4=ipv4,
            ipv6=ipv6,
            models=seen.models,
            metadata=metadata,
            cpu=self._load.cpu,
            memory=self._load.memory,
            loaded=seen.loaded,
            api=True,
            version=__version__,
            slots=settings.slots,
            weight=settings.weight,
        )

    async def _post(self, heartbeat: Heartbeat) -> str | None:
        """Send one; return what went wrong."""
        token = self._settings.token
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        url = f"{self._settings.hub}/nodes/heartbeat"
        try:
            async with self._session.post(url, json=heartbeat.body(), headers=headers, allow_redirects=False) as reply:
                if reply.status < 300:
                    return None
                said = (await reply.content.read(_LONGEST_ANSWER)).decode("utf-8", "replace")
                return f"it answered {reply.status}: {said}"
        except TimeoutError:
            return f"no answer in {_HUB_S:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return str(error) or type(error).__name__

    def _note(self, what: str, problem: str | None, *, at: str) -> None:
        """Write to the log when somebody begins to answer or to be in trouble; not again while it stays so."""
        known = what in self._problems
        before = self._problems.get(what)
        self._problems[what] = problem
        if known and (before is None) == (problem is None):
            return
        if problem is None:
            log.info(f"{what} answers", url=at)
        else:
            log.warning(f"{what} does not answer as it should; tried again", url=at, problem=problem)


def _bounded(names: list[str]) -> tuple[str, ...]:
    """Return what a hub takes: an Ollama may say anything."""
    return tuple(one for one in names if 0 < len(one) <= 600 and one.isprintable())[:MOST_MODELS]
