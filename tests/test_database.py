"""The database's file and schema: opened, put aside when damaged, brought up to date."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection

from mirror.db import Ledger, Traffic, in_transaction, open_database
from mirror.db.engine import upgrade
from mirror.db.tables import SCHEMA_VERSION, metadata
from mirror.errors import SettingsError
from mirror.events import BlobServed, BytesFetched, Served
from mirror.values import Digest, ModelName

NEWS = (BlobServed(ModelName.parse("tiny"), Digest.of(b""), Served.HIT, 1000), BytesFetched(Digest.of(b""), 100))


@pytest.fixture(autouse=True)
async def no_thread_is_left() -> AsyncIterator[None]:
    """Those of connections that failed or were cancelled have a last word for this test's loop."""
    others = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - others:
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()


@asynccontextmanager
async def ledger_on(file: Path) -> AsyncIterator[Ledger]:
    """What a process sees that has opened the file anew."""
    engine = await open_database(None, file)
    try:
        ledger = Ledger(engine)
        await ledger.load()
        yield ledger
    finally:
        await engine.dispose()


def cut(content: bytes) -> bytes:
    """A file of which the end is missing."""
    return content[: len(content) // 2]


def scratched(content: bytes) -> bytes:
    """A file whose header is right and whose rows are not."""
    page = int.from_bytes(content[16:18], "big")
    return content[:page] + b"\xff" * (len(content) - page)


@pytest.mark.parametrize("damage", [cut, scratched, lambda _: b"not a database " * 500, lambda _: b"x" * 50])
async def test_a_damaged_file_is_put_aside_and_service_goes_on(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """What it held may be lost; a mirror that does not start because of it may not be."""
    file = tmp_path / "mirror.db"
    async with ledger_on(file) as ledger:
        for event in NEWS:
            ledger.hear(event)
        await ledger.flush()
    broken = damage(file.read_bytes())
    file.write_bytes(broken)
    async with ledger_on(file) as ledger:
        assert ledger.total == Traffic()
        ledger.hear(NEWS[0])
        await ledger.flush()
    async with ledger_on(file) as ledger:
        assert ledger.total.hits == 1
    [aside] = tmp_path.glob("mirror.db.broken-*[0-9]")
    assert aside.read_bytes() == broken


async def test_a_file_that_cannot_be_opened_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Being locked, unreadable or no file says nothing of what is in it."""
    (tmp_path / "mirror.db").mkdir()
    with pytest.raises(SettingsError, match=r"database\.url: cannot open"):
        await open_database(None, tmp_path / "mirror.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mirror.db"]


@pytest.mark.soak
async def test_a_locked_file_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Somebody looks at it with another program; that must not cost the counts. (SQLite waits for 5 s.)"""
    file = tmp_path / "mirror.db"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SettingsError, match="locked"):
        await open_database(None, file)
    connection.close()
    assert not list(tmp_path.glob("*broken*"))


async def test_a_database_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    """Going back a version must not destroy what the newer one knows."""
    file = tmp_path / "mirror.db"
    async with ledger_on(file):
        pass
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(SettingsError, match="9999"):
        await open_database(None, file)
    assert not list(tmp_path.glob("*broken*"))


@pytest.mark.parametrize("url", ["", "nonsense", "nosuch+driver://h/d", "sqlite+aiosqlite:////no/such/folder/x.db"])
async def test_an_address_that_cannot_be_opened_is_a_wrong_setting(tmp_path: Path, url: str) -> None:
    """The user is told which key it is, not shown a traceback."""
    with pytest.raises(SettingsError, match=r"database\.url"):
        await open_database(url, tmp_path / "mirror.db")


@pytest.mark.parametrize("folder", ["a%20b", "what?x=1", "#1", "ü", "100% sure"])
async def test_any_folder_can_hold_it(tmp_path: Path, folder: str) -> None:
    """The path is a path and no address."""
    (tmp_path / folder).mkdir()
    async with ledger_on(tmp_path / folder / "mirror.db"):
        pass
    assert (tmp_path / folder / "mirror.db").is_file()
    assert len(list(tmp_path.iterdir())) == 1


def differences(connection: Connection) -> list[object]:
    """What the database has that the tables do not, and the other way round."""
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))


def test_the_migrations_lead_from_nothing_to_the_tables(tmp_path: Path) -> None:
    """A database that grew through all versions and a new one must be the same."""
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.begin() as connection:
        upgrade(connection)
        assert differences(connection) == []
        assert MigrationContext.configure(connection).get_current_revision() == SCHEMA_VERSION
    engine.dispose()


async def test_a_new_database_is_what_the_migrations_would_have_made(tmp_path: Path) -> None:
    """It is made at once, and the next version's migrations begin where it stands."""
    engine = await open_database(None, tmp_path / "new.db")
    async with engine.begin() as connection:
        assert await connection.run_sync(differences) == []
        await connection.run_sync(upgrade)
        assert await connection.run_sync(differences) == []
    await engine.dispose()
    scripts = ScriptDirectory(str(Path(__file__).parent.parent / "mirror" / "db" / "migrations"))
    assert scripts.get_heads() == [SCHEMA_VERSION]


async def test_what_is_begun_in_the_database_is_ended_however_often_somebody_is_cancelled(tmp_path: Path) -> None:
    """A connection broken off in the middle once kept the program from ending."""
    engine = await open_database(None, tmp_path / "mirror.db")
    begun, go = asyncio.Event(), asyncio.Event()

    async def write(connection: AsyncConnection) -> int:
        begun.set()
        await go.wait()
        await connection.execute(text("INSERT INTO pull_switches VALUES ('paused', 'yes')"))
        return 5

    async with asyncio.timeout(10):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(in_transaction(engine, write))
            await begun.wait()
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0)
            assert not task.done()
            go.set()
        assert task.cancelled()

        async def read(connection: AsyncConnection) -> str:
            return str(await connection.scalar(text("SELECT value FROM pull_switches")))

        assert await in_transaction(engine, read) == "yes"
        await engine.dispose()
