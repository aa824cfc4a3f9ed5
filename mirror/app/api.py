"""Ollama's API, built on one screen: the Ollama behind us, or else the store."""

from pathlib import Path

from aiohttp import web

from mirror.app.parts import Parts
from mirror.proxy import ApiFace, Descriptions, OwnAnswers, OwnPulls, QueueRoutes, Relay


def add_api(app: web.Application, parts: Parts) -> None:
    """Put the API on an application; routes of others below /api have to be there before. Ends with its cleanup."""
    settings, host = parts.settings.proxy, parts.settings.upstream.host
    descriptions = Descriptions(parts.store)
    own = OwnAnswers(
        parts.store,
        parts.admission,
        parts.tags,
        descriptions,
        OwnPulls(parts.store, parts.fills, parts.puller, offline=parts.settings.offline),
        host=host,
        max_body=settings.max_body,
    )
    database = "the database of database.url" if parts.settings.database.url else str(_file(parts))
    queue = QueueRoutes(
        parts.queue,
        parts.guards,
        parts.tags,
        parts.behind,
        host=host,
        folder=parts.store.layout.root,
        database=database,
    )
    app.add_routes(queue.routes())
    face = ApiFace(parts.behind, Relay(settings, parts.admission, parts.tags, host), own)
    app.add_routes(face.routes())

    async def close(_: web.Application) -> None:
        descriptions.close()

    app.on_cleanup.append(close)


def _file(parts: Parts) -> Path:
    return parts.store.layout.state / "mirror.db"
