"""The pages, built on one screen."""

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from mirror.access import Keyring, Users
from mirror.access.desk import Desk
from mirror.app.access import Access
from mirror.app.parts import Parts
from mirror.proxy import Descriptions
from mirror.web import QueueDesk
from mirror.web.pages import (
    AroundPages,
    HomePages,
    KeyPages,
    ModelPages,
    PromptPages,
    PullPages,
    Shown,
    TurnPages,
    set_up,
)

Sub = ModelPages | PullPages | TurnPages | KeyPages | PromptPages


@dataclass(frozen=True, slots=True)
class Pages:
    """Every page; ``home`` stands at two addresses where programs get something else."""

    shown: Shown
    home: HomePages
    around: AroundPages
    others: tuple[Sub, ...]

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of all but the home page."""
        return [route for one in (self.around, *self.others) for route in one.routes()]


def pages_on(app: web.Application, parts: Parts, access: Access) -> Pages:
    """Build the pages for an application."""
    settings, host = parts.settings, parts.settings.upstream.host
    set_up(app)
    descriptions = Descriptions(parts.store)

    async def close(_: web.Application) -> None:
        descriptions.close()

    app.on_cleanup.append(close)
    shown = Shown(access.seal, prompts=settings.prompts.enabled)
    desk = queue_desk(parts)
    home = HomePages(
        shown,
        parts.store,
        parts.keeper,
        parts.ledger,
        parts.fills,
        parts.pool,
        desk,
        parts.admission,
        settings.upstream.url,
    )
    models = ModelPages(
        shown,
        parts.store,
        parts.keeper.pins,
        parts.ledger,
        parts.pool,
        desk,
        parts.rollback,
        descriptions,
        parts.admission,
        host,
    )
    keyring = Keyring(settings.cache.state_directory.absolute())
    others: list[Sub] = [
        models,
        PullPages(shown, desk, parts.tags, parts.store, parts.admission),
        TurnPages(shown, parts.turns, parts.pool, parts.nodes, parts.admission),
        KeyPages(shown, Desk(keyring, settings.security), access.keys),
    ]
    if settings.prompts.enabled:
        others.append(_prompts(parts, access, shown))
    return Pages(shown, home, AroundPages(), tuple(others))


def queue_desk(parts: Parts) -> QueueDesk:
    """Return what takes orders for the queue."""
    host = parts.settings.upstream.host
    return QueueDesk(parts.queue, parts.worker, parts.pace, parts.wishes, parts.tags, host)


def _prompts(parts: Parts, access: Access, shown: Shown) -> PromptPages:
    said = parts.settings.dispatch
    return PromptPages(
        shown,
        parts.prompting.prompts,
        parts.prompting.worker,
        Users(said.trusted_users),
        parts.admission,
        lambda: access.keys.in_use,
        parts.settings.prompts.model,
        {name.lower(): real for name, real in said.aliases},
    )
