"""What models have answered, by day, user and model: kept in memory, written in batches, and read from the database."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db.batch import upsert, write_or_put_back
from mirror.db.engine import in_transaction
from mirror.db.tables import tallies as table
from mirror.errors import MirrorError
from mirror.events import Answered, Event

_MOST_NEW = 10_000
"""Rows that wait to be written; users beyond that are counted together."""
_LONGEST_MODEL = 600


class TalliesUnreadable(MirrorError):
    """The database cannot be read."""

    permanent = False


@dataclass(frozen=True, slots=True)
class Tally:
    """What a user had of a model on a day (UTC): answers, and tokens read and made."""

    day: date
    user: str
    model: str
    answers: int
    prompt: int
    made: int


class Tallies:
    """Listens to the news and adds up. For the event loop's thread; ``flush`` writes what is new.

    A database that cannot be written is tried again; the bounds of what waits hold meanwhile.
    """

    kinds = (Answered,)

    def __init__(self, engine: AsyncEngine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now
        self._new: dict[tuple[str, str, str], Counter[str]] = {}

    def hear(self, event: Event) -> None:
        """Take note of an answer; the tap for ``Events``."""
        if isinstance(event, Answered) and event.status < 300:
            day = self._now().date().isoformat()
            found = {"answers": 1, "prompt": event.prompt, "made": event.made}
            self._add((day, event.user, event.model[:_LONGEST_MODEL]), found)

    async def flush(self) -> None:
        """Write what is new since the last time."""
        new, self._new = self._new, {}
        if not new:
            return
        rows = [{"day": day, "user": user, "model": model, **count} for (day, user, model), count in new.items()]
        statement = upsert(self._engine, table, lambda column, more: column + more)

        async def write(connection: AsyncConnection) -> None:
            await connection.execute(statement, rows)

        def put_back() -> None:
            for key, count in new.items():
                self._add(key, count)

        await write_or_put_back(self._engine, write, put_back, "tallies")

    async def read(self, days: int) -> list[Tally]:
        """Return those of the last ``days`` days with today, the latest day first. Raises TalliesUnreadable."""
        await self.flush()
        since = (self._now().date() - timedelta(days=days - 1)).isoformat()
        query = select(table).where(table.c.day >= since).order_by(table.c.day.desc(), table.c.made.desc())

        async def read(connection: AsyncConnection) -> list[Tally]:
            return [
                Tally(date.fromisoformat(row.day), row.user, row.model, row.answers, row.prompt, row.made)
                for row in await connection.execute(query)
            ]

        try:
            return await in_transaction(self._engine, read)
        except SQLAlchemyError as error:
            said = getattr(error, "orig", None) or type(error).__name__
            raise TalliesUnreadable(f"the database cannot be read: {said}") from error

    async def forget(self, days: int) -> None:
        """Forget what is older than so many days; where that cannot be done now, it is another time."""
        since = (self._now().date() - timedelta(days=days)).isoformat()
        old = delete(table).where(table.c.day < since)
        await write_or_put_back(self._engine, lambda connection: connection.execute(old), lambda: None, "old tallies")

    def _add(self, key: tuple[str, str, str], more: "Counter[str] | dict[str, int]") -> None:
        if key not in self._new and len(self._new) >= _MOST_NEW:
            key = (key[0], "others", key[2])
        self._new.setdefault(key, Counter()).update(more)
