"""The application: every face on the parts it answers from, and what each request passes on its way there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self

from aiohttp import web

from mirror.access import Users
from mirror.app.access import Access
from mirror.app.access_log import access_log, wanted
from mirror.app.api import add_api
from mirror.app.pages import Pages, pages_on, queue_desk
from mirror.app.parts import Parts
from mirror.app.traced import traced
from mirror.config import Settings
from mirror.hub import HubFace, Jobs, OnThePool
from mirror.listen import CertificateFace, Certificates, DataAddress, Names, proxy_requests
from mirror.registry import Locations, RegistryFace, Senders
from mirror.web import (
    AdminFace,
    BundleFace,
    EventsFace,
    Looked,
    Metrics,
    OpenApiFace,
    OtherPaths,
    QueueFace,
    RollbackFace,
    SetupFace,
    StatusFace,
    StoreFace,
    TurnsFace,
    hidden_from,
    hides,
)

_LARGEST_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Ways:
    """How clients come to the mirror: its names, its certificates, its address for bytes."""

    names: Names
    certificates: Certificates
    data: DataAddress

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make them as the settings say."""
        names, state = Names.of(settings), settings.cache.state_directory.absolute()
        certificates = Certificates(state, names, settings.listen)
        return cls(names, certificates, DataAddress(settings.listen, names))


class Face(Protocol):
    """What answers some of the routes."""

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return them."""


def application(parts: Parts, ways: Ways, access: Access, senders: Senders) -> web.Application:
    """Put the faces on the parts."""
    settings = parts.settings
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
            proxy_requests(ways.names),
            *([ways.data.middleware()] if settings.listen.data else []),
            access.gate.middleware(),
        ],
        client_max_size=_LARGEST_BODY,
    )
    app.on_response_prepare.append(access.gate.prepare)
    pages = pages_on(app, parts, access)
    setup = SetupFace(settings, ways.names, ways.certificates, pages.shown)
    faces: list[Face] = [
        access,
        setup,
        OpenApiFace(),
        *_faces(parts, ways.data, access, senders),
        *_faces_that_look(parts, metrics, pages),
    ]
    faces += [CertificateFace(ways.certificates), *([pages] if settings.features.enable_web_ui else [])]
    for face in faces:
        app.add_routes(face.routes())
    watching = EventsFace(parts.events, parts.watch, parts.admission)
    app.add_routes(watching.routes())
    app.add_routes(OtherPaths().routes())
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
