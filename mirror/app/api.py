"""Ollama's API, built on one screen: the Ollama behind us, or else the store."""

from pathlib import Path

from aiohttp import web

from mirror.access import Users
from mirror.app.fetching import fetching
from mirror.app.parts import Parts
from mirror.proxy import (
    ApiFace,
    Descriptions,
    Generation,
    Models,
    OwnAnswers,
    Pulls,
    QueueRoutes,
    Relay,
    Standing,
)


def add_api(app: web.Application, parts: Parts) -> None:
    """Put the API on an application; routes of others below /api have to be there before. Ends with its cleanup."""
    settings, host = parts.settings.proxy, parts.settings.upstream.host
    descriptions = Descriptions(parts.store)
    own = OwnAnswers(parts.store, parts.admission, parts.tags, descriptions, host=host)
    standing = Standing(parts.queue, parts.worker, parts.guards.zone)
    database = "the database of database.url" if parts.settings.database.url else str(_file(parts))
    queue = QueueRoutes(
        parts.queue,
        parts.guards,
        parts.tags,
        parts.behind,
        parts.admission,
        host=host,
        folder=parts.store.layout.root,
        database=database,
    )
    app.add_routes(queue.routes())
    relay = Relay(settings, parts.admission)
    models = Models(
        parts.store,
        own,
        parts.admission,
        parts.tags,
        parts.queue,
        standing,
        parts.pool,
        host=host,
        show_stored=parts.settings.pulls.show_stored,
    )
    face = ApiFace(
        parts.behind,
        relay,
        own,
        models,
        _pulls(parts, standing),
        _generation(parts, relay),
        max_body=settings.max_body,
    )
    app.add_routes(face.routes())

    async def close(_: web.Application) -> None:
        descriptions.close()

    app.on_cleanup.append(close)


def _pulls(parts: Parts, standing: Standing) -> Pulls:
    return Pulls(
        parts.store,
        parts.tags,
        parts.admission,
        parts.wishes,
        parts.deliveries,
        parts.fills,
        standing,
        parts.upstreams.routes,
        mode=parts.settings.pulls.mode,
        keeps_filling=parts.settings.cache.keep_filling,
        offline=parts.settings.offline,
    )


def _generation(parts: Parts, relay: Relay) -> Generation:
    said = parts.settings.dispatch
    fetch = fetching(parts.settings, parts.tags, parts.deliveries, parts.admission, parts.pool)
    return Generation(
        relay,
        parts.turns,
        parts.pool,
        Users(said.trusted_users),
        parts.events,
        fetch,
        aliases=dict(said.aliases),
        retries=said.retries,
    )


def _file(parts: Parts) -> Path:
    return parts.store.layout.state / "mirror.db"
