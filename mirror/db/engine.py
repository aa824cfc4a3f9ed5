"""Opening the database, with its schema brought up to date."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import structlog
from sqlalchemy import URL, Connection, event, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mirror.db.tables import SCHEMA_VERSION, metadata
from mirror.errors import SettingsError

T = TypeVar("T")

log = structlog.get_logger(__name__)

_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""What says that the file is no database of ours; being locked, read-only or out of room says nothing of it."""
_END_S = 2.0
_NO_ROOM = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}


async def open_database(url: str | None, file: Path) -> AsyncEngine:
    """Open the database at ``url``, or SQLite at ``file``, and migrate it to what this version needs.

    A SQLite file that is damaged is put aside and a new one begun: what it held may be lost. On a full disk memory
    stands in for it, so that what is stored can be served, and removed.

    Raises:
        SettingsError: the database cannot be opened, or a newer version has changed it.
    """
    if url is not None:
        try:
            # A server may have been away and come back.
            return await _opened(create_async_engine(url, pool_pre_ping=True))
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise SettingsError("database.url", f"cannot open the database: {_said(error)}", "settings") from error
    try:
        return await _opened(_sqlite(file))
    except DatabaseError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in _NO_ROOM:
            log.warning("database not opened; counts of this run are lost", file=str(file), problem=_said(error))
            return await _opened(_sqlite(None))
        if code not in _BROKEN:
            raise SettingsError("database.url", f"cannot open {file}: {_said(error)}", "default") from error
        _put_aside(file, _said(error))
    try:
        return await _opened(_sqlite(file))
    except DatabaseError as error:
        raise SettingsError("database.url", f"cannot open {file}: {_said(error)}", "default") from error


async def look_at_database(url: str | None, file: Path) -> str | None:
    """Return the version of the schema, None where there is no database yet. Changes nothing, also beside the file.

    A file must be nobody else's meanwhile, and have been closed: its log is not read.

    Raises:
        SettingsError: it cannot be opened or is damaged.
    """
    if url is None:
        if not await asyncio.to_thread(file.exists):
            return None
        url = f"sqlite+aiosqlite:///file:{quote(str(file))}?mode=ro&immutable=1&uri=true"
    engine: AsyncEngine | None = None
    try:
        engine = create_async_engine(url)
        return await in_transaction(engine, lambda connection: connection.run_sync(_version))
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise SettingsError("database.url", f"cannot read the database: {_said(error)}", "settings") from error
    finally:
        if engine is not None:
            await engine.dispose()


async def in_transaction(
    engine: AsyncEngine,
    work: Callable[[AsyncConnection], Awaitable[T]],
    committed: Callable[[], None] = lambda: None,
) -> T:
    """Do work in one transaction, to its end whatever becomes of who waits for it; return what it returns.

    ``committed`` is called once it is written, also where nobody waits for it any more.

    Who is cancelled waits for the end and is cancelled then. A connection that is broken off in the middle may leave
    its driver waiting for ever (aiosqlite's ``close`` after ``stop``), and with it the end of the program.

    Raises SQLAlchemyError, and what ``work`` raises.
    """

    async def whole() -> T:
        try:
            async with engine.begin() as connection:
                done = await work(connection)
        except OSError as error:  # a server that does not answer, which SQLAlchemy hands on as it is
            raise OperationalError(None, None, error) from error
        committed()
        return done

    task = asyncio.get_running_loop().create_task(whole())  # in no group, which would cancel it: it is waited for here
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


def _put_aside(file: Path, problem: str) -> None:
    """Rename a damaged database, its log first: that must not be taken for the log of the new one."""
    aside = file.with_name(f"{file.name}.broken-{int(time.time())}")
    log.warning("database broken", file=str(file), kept_as=str(aside), problem=problem)
    for suffix in ("-wal", "-shm", ""):
        old = file.with_name(file.name + suffix)
        if old.exists():
            old.rename(aside.with_name(aside.name + suffix))


def _said(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error)


def _sqlite(file: Path | None) -> AsyncEngine:
    """An engine on a file; without one, on memory."""
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(file) if file else ":memory:"))
    threads: list[threading.Thread] = []

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        threads[:] = [*(one for one in threads if one.is_alive()), connection.driver_connection._thread]
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "engine_disposed")
    def end(_: object) -> None:
        # A connection that was ended by a cancelled task tells the loop so, which must not be closed by then.
        for thread in threads:
            thread.join(_END_S)

    return engine


async def _opened(engine: AsyncEngine) -> AsyncEngine:
    try:
        await in_transaction(engine, lambda connection: connection.run_sync(_migrate))
    except BaseException:
        await engine.dispose()
        raise
    return engine


def _migrate(connection: Connection) -> None:
    """Bring the schema to what this version needs. A new database is made at once; migrations are for older ones."""
    if connection.dialect.name == "sqlite":
        _check(connection)
    tables = inspect(connection).get_table_names()
    if not tables:
        metadata.create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": SCHEMA_VERSION})
    elif connection.scalar(text("SELECT version_num FROM alembic_version")) != SCHEMA_VERSION:
        upgrade(connection)


def _version(connection: Connection) -> str | None:
    if connection.dialect.name == "sqlite":
        _check(connection)
    if "alembic_version" not in inspect(connection).get_table_names():
        return None
    return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


def _check(connection: Connection) -> None:
    """Find now the damage that SQLite itself notices only when it comes to read there."""
    found = str(connection.scalar(text("PRAGMA quick_check(1)")))
    if found != "ok":
        problem = sqlite3.DatabaseError(found)
        problem.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise DatabaseError("PRAGMA quick_check", None, problem)


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, from the first on. Raises SettingsError for a newer version's database."""
    from alembic import command  # ten megabytes that only an older database needs
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SettingsError("database.url", f"cannot bring the database up to date: {error}", "default") from error
