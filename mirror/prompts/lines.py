"""The lines of batches as rows of the table of prompt jobs, in the database alone."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Delete, Select, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db.tables import prompt_jobs as table
from mirror.prompts.database import transacted
from mirror.prompts.prompt import State

_MOST, _MOST_BYTES = 500, 8 << 20


@dataclass(frozen=True, slots=True)
class Over:
    """A line that is over: ``result`` is what ``responses`` made, as JSON of a text; None where it was taken back."""

    number: int
    id: str
    custom_id: str | None
    state: State
    result: str | None


class Lines:
    """What is known of lines. Everything raises PromptsUnusable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def last(self, batch: str) -> int:
        """Return the number of the last line that was taken; 0 where none was."""
        query = select(func.max(table.c.line)).where(table.c.batch == batch)
        return await transacted(self._engine, lambda connection: connection.scalar(query)) or 0

    async def counts(self, batch: str) -> tuple[int, int]:
        """Return how many lines are completed, and how many failed."""
        query = select(table.c.state, func.count()).where(table.c.batch == batch).group_by(table.c.state)

        async def read(connection: AsyncConnection) -> Counter[str]:
            found: Counter[str] = Counter()
            for state, count in (await connection.execute(query)).all():
                found[state] = count
            return found

        found = await transacted(self._engine, read)
        return found[State.COMPLETED], found[State.FAILED]

    async def over(self, batch: str) -> AsyncIterator[Over]:
        """Yield those that are over, in order; of what they answered a few megabytes are in memory at once."""
        size = func.coalesce(func.length(table.c.result), 0)
        done = table.c.state.in_([State.COMPLETED.value, State.FAILED.value, State.CANCELLED.value])
        query = select(table.c.line, size).where(table.c.batch == batch, done).order_by(table.c.line).limit(_MOST)
        after = 0
        while sizes := await self._sizes(query.where(table.c.line > after)):
            until = _until(sizes)
            for one in await self._between(batch, after, until):
                yield one
            after = until

    async def _sizes(self, query: Select[Any]) -> list[tuple[int, int]]:
        async def read(connection: AsyncConnection) -> list[tuple[int, int]]:
            return [(number, size) for number, size in (await connection.execute(query)).all()]

        return await transacted(self._engine, read)

    async def _between(self, batch: str, after: int, until: int) -> list[Over]:
        columns = (table.c.line, table.c.id, table.c.custom_id, table.c.state, table.c.result)
        query = select(*columns).where(table.c.batch == batch, table.c.line > after, table.c.line <= until)

        async def read(connection: AsyncConnection) -> list[Over]:
            rows = (await connection.execute(query.order_by(table.c.line))).all()
            return [Over(number, id_, json.loads(name), State(state), said) for number, id_, name, state, said in rows]

        return [one for one in await transacted(self._engine, read) if one.state.over]


def forget_lines(batch: str) -> Delete:
    """Return what deletes the lines of a batch."""
    return delete(table).where(table.c.batch == batch)


def _until(sizes: Sequence[tuple[int, int]]) -> int:
    """Return the number of the last line, of so many as are read together."""
    total = 0
    for at, (_, size) in enumerate(sizes):
        total += size
        if total > _MOST_BYTES:
            return sizes[max(at - 1, 0)][0]
    return sizes[-1][0]
