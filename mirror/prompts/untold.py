"""Prompt jobs that are over and of which their webhooks have not been told, in the database alone."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db.instants import aware
from mirror.db.tables import prompt_jobs as table
from mirror.prompts.database import transacted

_MOST = 5000


@dataclass(frozen=True, slots=True)
class Untold:
    """An end to be told at an instant, for the first time or after ``tries`` in vain."""

    id: str
    url: str
    tries: int
    at: datetime


class Ends:
    """Which ends are to be told, also in the next life. Everything raises PromptsUnusable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def untold(self) -> list[Untold]:
        """Return those that are due the soonest."""
        columns = (table.c.id, table.c.webhook, table.c.tellings, table.c.tell_at)
        query = select(*columns).where(table.c.tell_at.is_not(None)).order_by(table.c.tell_at).limit(_MOST)

        async def read(connection: AsyncConnection) -> list[Untold]:
            rows = (await connection.execute(query)).all()
            return [Untold(id_, url or "", tries, at) for id_, url, tries, when in rows if (at := aware(when))]

        return await transacted(self._engine, read)

    async def later(self, one: Untold, at: datetime) -> None:
        """It was told in vain, and is to be told again then."""
        await self._set(one, tellings=one.tries + 1, tell_at=at)

    async def done(self, one: Untold) -> None:
        """It was told, or is given up. Its URL is forgotten."""
        await self._set(one, tell_at=None, webhook=None)

    async def _set(self, one: Untold, **changes: object) -> None:
        change = update(table).where(table.c.id == one.id).values(**changes)
        await transacted(self._engine, lambda connection: connection.execute(change))
