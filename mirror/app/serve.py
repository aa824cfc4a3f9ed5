"""A running mirror: from settings to sockets, and down again."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from aiohttp import web

from mirror.access import Users
from mirror.app.access import Access, access_of
from mirror.app.access_log import access_log, wanted
from mirror.app.api import add_api
from mirror.app.hub import announcing
from mirror.app.news_log import LOGGED, log_news
from mirror.app.pages import Pages, pages_on, queue_desk
from mirror.app.parts import Parts, kept_in_order, opened_parts
from mirror.app.reloading import Reloading
from mirror.app.supervisor import Supervisor
from mirror.app.traced import traced
from mirror.config import Settings, not_yet
from mirror.hub import HubFace, Jobs, OnThePool
from mirror.listen import CertificateFace, Certificates, DataAddress, Door, Names, proxy_requests
from mirror.registry import Locations, RegistryFace, Senders
from mirror.upstream.addresses import is_public
from mirror.web import (
    AdminFace,
    BundleFace,
    EventsFace,
    Looked,
    Metrics,
    QueueFace,
    RollbackFace,
    SetupFace,
    StatusFace,
    StoreFace,
    TurnsFace,
    hidden_from,
    hides,
)

log = structlog.get_logger(__name__)

_LARGEST_BODY = 1 << 20


class Face(Protocol):
    """What answers some of the routes."""

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return them."""


@dataclass(frozen=True, slots=True)
class RunningMirror:
    """A mirror that serves; ``url`` is where this machine reaches it, the first of all its addresses ``urls``."""

    url: str
    parts: Parts
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
    stop, supervisor = asyncio.Event(), Supervisor.of(os.environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_end, stop, number)
    gc.disable()  # nearly all that a start makes stays: looking at it on the way takes a large store a third longer
    async with running_mirror(settings) as mirror:
        gc.freeze()  # nor need the collector look at it again for every few requests
        gc.enable()
        if again is not None:
            loop.add_signal_handler(signal.SIGHUP, Reloading(mirror.parts, again).reload)
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
        names = Names.of(settings)
        certificates = Certificates(settings.cache.state_directory.absolute(), names, settings.listen)
        data = DataAddress(settings.listen, names)
        runner = web.AppRunner(
            application(parts, names, certificates, data, senders),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=settings.server.shutdown,
        )
        async with AsyncExitStack() as told, Door(settings, names, certificates, data, is_public) as door:
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
                yield RunningMirror(url, parts, urls)
            finally:
                door.close()
                await runner.cleanup()


def application(
    parts: Parts, names: Names, certificates: Certificates, data: DataAddress, senders: Senders
) -> web.Application:
    """Put the faces on the parts."""
    settings = parts.settings
    access = access_of(settings, names, parts.passes)
    looked = Looked(
        parts.store,
        parts.fills,
        parts.turns,
        parts.pool,
        parts.nodes,
        parts.queue,
        parts.pace,
        parts.prompting.prompts.counts,
    )
    metrics = Metrics(looked)
    parts.events.tap(metrics.hear)
    logging = [access_log] if settings.logging.access and wanted() else []
    app = web.Application(
        middlewares=[
            *logging,
            *([traced] if settings.features.enable_tracing else []),
            proxy_requests(names),
            *([data.middleware()] if settings.listen.data else []),
            access.gate.middleware(),
        ],
        client_max_size=_LARGEST_BODY,
    )
    app.on_response_prepare.append(access.gate.prepare)
    pages = pages_on(app, parts, access)
    setup = SetupFace(settings, names, certificates, pages.shown)
    faces: list[Face] = [access, setup, *_faces(parts, data, access, senders), *_faces_that_look(parts, metrics, pages)]
    faces += [CertificateFace(certificates), *([pages] if settings.features.enable_web_ui else [])]
    for face in faces:
        app.add_routes(face.routes())
    watching = EventsFace(parts.events, parts.watch, parts.admission)
    app.add_routes(watching.routes())
    app.on_shutdown.append(watching.end)
    if settings.hub.enabled:
        app.add_routes(_hub(parts).routes())
    if settings.prompts.enabled:
        face = parts.prompting.face(settings, parts.admission, lambda: access.keys.in_use)
        app.add_routes(face.routes())
        app.on_shutdown.append(face.close)
        app.add_routes(parts.batching.face(settings, parts.prompting, lambda: access.keys.in_use).routes())
    if settings.features.enable_api_proxy:
        add_api(app, parts)
    return app


def _faces(parts: Parts, data: DataAddress, access: Access, senders: Senders) -> Iterable[Face]:
    settings = parts.settings
    return (
        RegistryFace(
            parts.store,
            parts.fills,
            parts.tags,
            parts.upstreams,
            parts.events,
            parts.admission,
            Locations(data.location, access.seal.ticket),
            parts.passes,
            senders,
            offline=settings.offline,
        ),
        BundleFace(parts.store, parts.keeper, settings.upstream.host),
        QueueFace(
            queue_desk(parts),
            parts.puller,
            offline=settings.offline,
            keeps_filling=settings.cache.keep_filling,
        ),
        RollbackFace(parts.rollback, settings.upstream.host),
        TurnsFace(parts.turns, parts.pool, parts.nodes, parts.tallies, parts.admission),
        StoreFace(parts.store, parts.keeper, parts.scrub, parts.repairer, parts.admission, settings.upstream.host),
    )


def _hub(parts: Parts) -> HubFace:
    said = parts.settings
    users = Users(said.dispatch.trusted_users)
    silence_s, retries = said.hub.request_timeout, said.dispatch.retries
    aliases = dict(said.dispatch.aliases)
    jobs = OnThePool(parts.turns, parts.pool, users, parts.admission, aliases, silence_s=silence_s, retries=retries)
    token = said.hub.token

    def hiding(request: web.Request) -> Callable[[str], bool]:
        return partial(hides, hidden_from(request, parts.admission))

    offered = Jobs(jobs, said.proxy.max_body)
    return HubFace(parts.nodes, offered, token.get_secret_value() if token else None, hiding)


def _faces_that_look(parts: Parts, metrics: Metrics, pages: Pages) -> Iterable[Face]:
    settings = parts.settings
    shows = settings.features.enable_web_ui
    return (
        StatusFace(
            settings,
            parts.store,
            parts.keeper.pins,
            parts.fills,
            parts.ledger,
            parts.upstreams.main,
            metrics,
            parts.admission,
            pages.home.home if shows else None,
            pages.home.stats if shows else None,
        ),
        AdminFace(
            parts.store,
            parts.ledger,
            parts.keeper.pins,
            parts.upstreams,
            parts.admission,
            settings.upstream.host,
        ),
    )


def _url(host: str, port: int) -> str:
    """Return the address by which this machine reaches what listens there."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared only
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def _stop_or_end(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        os._exit(128 + number)
    stop.set()
