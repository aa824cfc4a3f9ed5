"""What has changed in memory, written in one go; where it cannot be, it counts as changed still."""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from sqlalchemy import Column, ColumnElement, Table
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db.engine import in_transaction

log = structlog.get_logger(__name__)


async def write_or_put_back(
    engine: AsyncEngine, write: Callable[[AsyncConnection], Awaitable[object]], put_back: Callable[[], None], what: str
) -> bool:
    """Write in a transaction; say whether it was done. Where it was not, ``put_back`` has been called by then.

    A database that cannot be written is a line in the log, which names ``what``: it is tried again with what comes
    next. A task that is cancelled meanwhile has put back too, for the last flush of a process must find everything.
    """
    done = False
    try:
        await in_transaction(engine, write)
        done = True
    except SQLAlchemyError as error:
        log.warning("database not written", what=what, problem=str(getattr(error, "orig", None) or error))
    finally:
        if not done:
            put_back()
    return done


def upsert(
    engine: AsyncEngine, table: Table, value: Callable[[Column[Any], ColumnElement[Any]], ColumnElement[Any]]
) -> Any:
    """Return a statement that inserts rows; where the key of one is there, each other column gets ``value``.

    That is called with the column as it is and with what the new row has in it.
    """
    insert = postgresql_insert if engine.dialect.name == "postgresql" else sqlite_insert
    statement = insert(table)
    new, further = statement.excluded, [column for column in table.columns if not column.primary_key]
    others = {column.name: value(column, new[column.name]) for column in further}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=others)
