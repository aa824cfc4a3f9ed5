"""Opening the database, with its schema brought up to date."""

import time
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from mirror.errors import SettingsError

log = structlog.get_logger(__name__)


async def open_database(url: str | None, file: Path) -> AsyncEngine:
    """Open the database at ``url``, or SQLite at ``file``, and migrate it to what this version needs.

    A SQLite file that is damaged is put aside and a new one begun: what it held may be lost.

    Raises:
        SettingsError: the database cannot be opened.
    """
    if url is not None:
        return await _opened(create_async_engine(url))
    try:
        return await _opened(_sqlite(file))
    except DatabaseError as error:
        aside = file.with_name(f"{file.name}.broken-{int(time.time())}")
        log.warning("database broken", file=str(file), kept_as=str(aside), problem=str(error.orig))
        for suffix in ("", "-wal", "-shm"):
            old = file.with_name(file.name + suffix)
            if old.exists():
                old.rename(aside.with_name(aside.name + suffix))
    try:
        return await _opened(_sqlite(file))
    except DatabaseError as error:
        raise SettingsError("database.url", f"cannot open {file}: {error.orig}", "default") from error


def _sqlite(file: Path) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # the DBAPI's, which SQLAlchemy does not type
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


async def _opened(engine: AsyncEngine) -> AsyncEngine:
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_migrate)
    except BaseException:
        await engine.dispose()
        raise
    return engine


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
