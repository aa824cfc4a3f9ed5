"""Pages of lists as OpenAI has them: what comes after an id, so many of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Select, Table, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page: at most ``limit``, after the one of that id, the newest first or the oldest."""

    limit: int
    after: str | None = None
    newest: bool = True


async def page_of(
    connection: AsyncConnection, query: Select[Any], table: Table, asked: Asked
) -> tuple[Sequence[RowMapping], bool]:
    """Return the rows of a page, and whether there are more; none after an id that there is not."""
    by = (table.c.created_at, table.c.id)
    if asked.after is not None:
        last = (await connection.execute(select(*by).where(table.c.id == asked.after))).first()
        if last is None:
            return [], False
        at, id_ = last
        beyond = by[0] < at if asked.newest else by[0] > at
        later = by[1] < id_ if asked.newest else by[1] > id_
        query = query.where(or_(beyond, and_(by[0] == at, later)))
    ordered = query.order_by(*(one.desc() if asked.newest else one for one in by))
    rows = (await connection.execute(ordered.limit(asked.limit + 1))).mappings().all()
    return rows[: asked.limit], len(rows) > asked.limit
