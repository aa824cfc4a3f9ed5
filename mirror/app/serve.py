"""A running mirror: from settings to sockets, and down again."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from mirror.app.access import access_of
from mirror.app.application import Ways, application
from mirror.app.hub import announcing
from mirror.app.news_log import LOGGED, log_news
from mirror.app.parts import Parts, kept_in_order, opened_parts
from mirror.app.reloading import Reloading
from mirror.app.supervisor import Supervisor
from mirror.config import Settings, not_yet
from mirror.listen import Door
from mirror.registry import Senders
from mirror.threads import share_heaps
from mirror.upstream.addresses import is_public
from mirror.web import Gate

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunningMirror:
    """A mirror that serves; ``url`` is where this machine reaches it, the first of all its addresses ``urls``."""

    url: str
    parts: Parts
    gate: Gate
    urls: tuple[str, ...] = ()


Beside = Callable[[RunningMirror, asyncio.Event], Coroutine[None, None, None]]
"""What runs while a mirror serves. It is given what stops the mirror, and ends once that is set."""


async def serve(
    settings: Settings,
    ready: Callable[[RunningMirror], None],
    beside: Beside | None = None,
    again: Callable[[], Settings] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order; a second signal ends the process at once.

    At SIGHUP settings are read by ``again``, where it is given, and what can change does.

    Raises:
        SettingsError, StoreBusy, StoreUnusable: it could not start.
    """
    share_heaps()
    stop, supervisor = asyncio.Event(), Supervisor.of(os.environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_end, stop, number)
    gc.disable()  # nearly all that a start makes stays: looking at it on the way takes a large store a third longer
    async with running_mirror(settings) as mirror:
        gc.freeze()  # nor need the collector look at it again for every few requests
        gc.enable()
        if again is not None:
            loop.add_signal_handler(signal.SIGHUP, Reloading(mirror.parts, mirror.gate, again).reload)
        ready(mirror)
        supervisor.serving(mirror.url)
        async with asyncio.TaskGroup() as group:
            watchdog = group.create_task(supervisor.reassure(), name="watchdog")
            if beside is not None:
                group.create_task(beside(mirror, stop))
            await stop.wait()
            watchdog.cancel()
        supervisor.stopping()
        log.info("stopping", replies_may_take_s=settings.server.shutdown)


@asynccontextmanager
async def running_mirror(settings: Settings) -> AsyncIterator[RunningMirror]:
    """Serve while the context lasts. On the way out: listen no more, let replies finish, park fills, close."""
    for key in not_yet(settings):
        log.warning("setting without effect in this version", key=key)
    async with (
        opened_parts(settings, holder="mirror serve") as parts,
        kept_in_order(parts),
        Senders(settings.server.workers - 1) as senders,
    ):
        parts.events.tap(log_news, *LOGGED)
        for problem in parts.store.problems:
            log.warning("store", problem=problem)
        ways = Ways.of(settings)
        access = access_of(settings, ways.names, parts.passes)
        runner = web.AppRunner(
            application(parts, ways, access, senders),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=settings.server.shutdown,
        )
        async with (
            AsyncExitStack() as told,
            Door(settings, ways.names, ways.certificates, ways.data, is_public) as door,
        ):
            try:
                await runner.setup()
                if runner.server is None:
                    raise RuntimeError("the runner has no server after its setup")
                await door.open(runner.server)
                urls = tuple(_url(*address) for address in door.addresses)
                url = urls[0]
                parts.store.lock.announce(url)
                parts.deliveries.port = door.addresses[0][1]
                await told.enter_async_context(announcing(settings.hub, parts.deliveries.port))
                log.info("serving", url=url, store=str(parts.store.layout.root), upstream=settings.upstream.url)
                yield RunningMirror(url, parts, access.gate, urls)
            finally:
                door.close()
                await runner.cleanup()


def _url(host: str, port: int) -> str:
    """Return the address by which this machine reaches what listens there."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared only
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def _stop_or_end(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        os._exit(128 + number)
    stop.set()
