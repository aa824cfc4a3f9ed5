"""PostgreSQL in SQLite's place: the same promises, and a server that comes and goes."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from mirror.db import Ledger, Tallies, Traffic, in_transaction, open_database
from mirror.db.engine import upgrade
from mirror.db.tables import SCHEMA_VERSION
from mirror.errors import SettingsError
from mirror.events import BlobServed, Served
from mirror.prompts import Prompts, parse_prompt
from mirror.pulls import Queue
from mirror.values import Digest, ModelName
from tests.access import Clock
from tests.fakes.ollama import running_fake_ollama
from tests.fakes.registry import running_fake_registry
from tests.net import free_port
from tests.prompts import Prompting
from tests.support import MANIFEST, add_blob, blob_path, eventually, mirrored
from tests.test_database import differences

BIN = next((str(one.parent) for one in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
INITDB = shutil.which("initdb", path=BIN) or shutil.which("initdb")
pytestmark = pytest.mark.skipif(INITDB is None, reason="initdb is not installed (Debian's postgresql)")


@dataclass
class Server:
    """A PostgreSQL of these tests' own, on loopback; root may not run one, so that its own user does."""

    folder: Path
    port: int

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs to its end."""
        user = "postgres" if os.geteuid() == 0 else None
        path = Path(INITDB or "").with_name(program)
        subprocess.run([path, *arguments], user=user, check=True, timeout=50, capture_output=True, cwd=self.folder)

    def start(self) -> None:
        """Have it answer; a computer that dies is no part of these tests, so it need not sync."""
        said = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-o", said, "-l", f"{self.folder}/log", "-w", "start")

    def stop(self) -> None:
        """End it as a crash would."""
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    async def database(self, name: str) -> str:
        """Make a database; return its address."""
        arguments = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "mirror", name)
        await asyncio.to_thread(self.run, "createdb", *arguments)
        return f"postgresql+asyncpg://mirror@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all tests of this file, which each have a database of their own."""
    with tempfile.TemporaryDirectory(prefix="mirror-pg-") as made:
        folder = Path(made)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        one = Server(folder, free_port())
        one.run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "mirror", "-E", "UTF8", "--no-sync")
        one.start()
        yield one
        one.stop()


async def test_what_rooms_keep_is_there_in_the_next_life(server: Server) -> None:
    """Counts, who used what, jobs with their order, prompts with their answers."""
    url, clock, ids = await server.database("kept"), Clock(), set[str]()
    name = ModelName.parse("llama3.2")
    for life in range(2):
        engine = await open_database(url, Path("unused"))
        try:
            ledger, tallies = Ledger(engine), Tallies(engine)
            await ledger.load()
            queue = Queue(engine, 100, clock.instant)
            await queue.load()
            prompts = Prompts(engine, 2, 1000, clock.instant)
            await prompts.load()
            if not life:
                ledger.used(name)
                ledger.hear(BlobServed(name, Digest.of(b""), Served.HIT, 5 * 10**12))
                for model in ("a", "b"):
                    await queue.ask(ModelName.parse(model), "10.0.0.1", priority=int(model == "b"))
                ids.add((await prompts.ask(parse_prompt({"prompt": "\N{SNOWMAN}"}, "m"), "ann", "once")).id)
                await ledger.flush()
                await tallies.flush()
            assert ledger.total == Traffic(hits=1, served_bytes=5 * 10**12)
            assert ledger.use(name).used_at is not None
            assert [job.name.model for job in queue.jobs] == ["b", "a"]
            again = await prompts.ask(parse_prompt({"prompt": "\N{SNOWMAN}"}, "m"), "ann", "once")
            assert ids == {again.id}
            assert (await prompts.body(again))["prompt"] == "\N{SNOWMAN}"
        finally:
            await engine.dispose()


async def test_migrations_lead_there_too(server: Server) -> None:
    """A database that grew through all versions and a new one are the same."""
    old, new = await server.database("old"), await server.database("new")
    first = await open_database(old, Path("unused"))

    async def to_nothing(connection: AsyncConnection) -> None:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))

    async def grow(connection: AsyncConnection) -> list[object]:
        await connection.run_sync(upgrade)
        return await connection.run_sync(differences)

    try:
        await in_transaction(first, to_nothing)
        assert await in_transaction(first, grow) == []
    finally:
        await first.dispose()
    for url in (old, new):
        engine = await open_database(url, Path("unused"))
        async with engine.begin() as connection:
            assert await connection.run_sync(differences) == []
            assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == SCHEMA_VERSION
        await engine.dispose()


async def test_a_server_that_goes_takes_no_hit_along_and_is_used_again_when_it_is_back(
    server: Server, tmp_path: Path
) -> None:
    """What cannot be written says so and has not happened; nothing needs a restart."""
    url = await server.database("comes_and_goes")
    async with (
        running_fake_registry() as fake,
        running_fake_ollama(tmp_path / "ollama") as ollama,
        mirrored(tmp_path, fake, database__url=url, proxy__backend=ollama.url) as (mirror, client),
    ):
        ollama.folder.add("m")
        content, digest = add_blob(fake, 2_000_000)
        await client.get(MANIFEST)
        assert (await client.get(blob_path(digest))).body == content
        me = Prompting(client)
        before = await me.submit("before", model="m")
        await me.until(before, "completed")
        await asyncio.to_thread(server.stop)
        try:
            assert (await client.get(MANIFEST)).cache == "HIT"
            assert (await client.get(blob_path(digest))).body == content
            async with client.session.post(client.url("/api/v1/prompt"), json={"prompt": "x", "model": "m"}) as refused:
                assert refused.status == 503
            async with client.session.post(client.url("/api/pull"), json={"model": "x", "stream": False}) as refused:
                assert refused.status >= 500
            await mirror.parts.ledger.flush()
        finally:
            await asyncio.to_thread(server.start)

        async def answers() -> bool:
            async with client.session.post(client.url("/api/v1/prompt"), json={"prompt": "x", "model": "m"}) as answer:
                return answer.status < 300

        await eventually(answers)
        assert (await me.until(before, "completed"))["result"]
        await mirror.parts.ledger.flush()
        assert mirror.parts.ledger.total.hits >= 1


async def test_one_that_is_not_there_at_the_start_is_said_with_its_key(tmp_path: Path) -> None:
    """And not taken for a damaged file."""
    with pytest.raises(SettingsError, match=r"database\.url: cannot open the database"):
        await open_database(f"postgresql+asyncpg://mirror@127.0.0.1:{free_port()}/none", tmp_path / "unused")


async def test_errors_are_of_one_kind(server: Server) -> None:
    """So that a room need not know which database it has."""
    engine = await open_database(await server.database("errors"), Path("unused"))

    async def ask(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT 1"))

    try:
        await in_transaction(engine, ask)
        await asyncio.to_thread(server.stop)
        for _ in range(2):
            with pytest.raises(SQLAlchemyError):
                await in_transaction(engine, ask)
        await asyncio.to_thread(server.start)
        await in_transaction(engine, ask)
    finally:
        await engine.dispose()
