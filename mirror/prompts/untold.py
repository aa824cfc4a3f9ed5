"""Prompt jobs that are over and of which their webhooks have not been told, in the database alone."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db.instants import aware
from mirror.db.tables import prompt_jobs as table
from mirror.prompts.database import transacted

_MOST = 500


@dataclass(frozen=True, slots=True)
class Untold:
    """An end to be told at an instant, for the first time or after ``tries`` in vain; ``user`` wants it told."""

    id: str
    url: str
    tries: int
    user: str = ""


class Ends:
    """Which ends are to be told, also in the next life. Everything raises PromptsUnusable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def due(self, now: datetime) -> list[Untold]:
        """Return some of those that are due, users in turn, and of each the receivers in turn.

        However many there are of one, the first of every other are among them.
        """
        due = table.c.tell_at <= now
        of_receiver = func.row_number().over(partition_by=(table.c.user, table.c.webhook), order_by=table.c.tell_at)
        columns = (table.c.id, table.c.webhook, table.c.tellings, table.c.user, table.c.tell_at)
        ranked = select(*columns, of_receiver.label("place")).where(due).subquery()
        of_user = func.row_number().over(partition_by=ranked.c.user, order_by=(ranked.c.place, ranked.c.tell_at))
        query = select(ranked, of_user.label("turn")).order_by(of_user, ranked.c.tell_at).limit(_MOST)

        async def read(connection: AsyncConnection) -> list[Untold]:
            rows = (await connection.execute(query)).all()
            return [Untold(row.id, row.webhook or "", row.tellings, row.user) for row in rows]

        return await transacted(self._engine, read)

    async def next_after(self, now: datetime) -> datetime | None:
        """Return when the next of those is due that are not yet; None where there is none."""
        query = select(func.min(table.c.tell_at)).where(table.c.tell_at > now)

        async def read(connection: AsyncConnection) -> datetime | None:
            return aware(await connection.scalar(query))

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
