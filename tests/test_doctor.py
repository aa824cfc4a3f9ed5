"""``mirror doctor`` finds what is wrong, says what to do, and changes nothing."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from mirror.app.doctor import Finding, Verdict, effects, examine
from mirror.app.doctor.service import descriptors
from mirror.app.neighbours import Neighbour, installed, running
from mirror.app.serve import running_mirror
from mirror.config import Settings
from mirror.db import open_database
from mirror.db.tables import SCHEMA_VERSION
from tests.fakes.ollama import running_fake_ollama
from tests.fakes.registry import running_fake_registry
from tests.net import answering, free_port
from tests.process import mirror
from tests.stored import NAME, WEIGHTS, files, keep, made, opened
from tests.support import eventually, settings

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM


async def found(said: Settings, *neighbours: Neighbour) -> dict[str, Finding]:
    """What is found, by what it is about; of several about one matter the last."""
    return {one.matter: one async for one in examine(said, neighbours)}


def offline(folder: Path, **changes: Any) -> Settings:
    """Settings of a mirror that asks nobody."""
    return settings(folder, "http://127.0.0.1:9", offline=True, **changes)


def sharing(folder: Path) -> Settings:
    """Settings of a mirror that has its folder together with an Ollama."""
    return offline(folder, cache__shared_with_ollama=True)


async def test_a_mirror_that_is_well_has_no_warning_and_is_left_as_it_was(tmp_path: Path) -> None:
    """Whoever looks must not fear to change anything, not even a time on disk."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    async with running_fake_registry() as fake:
        seen = await found(settings(tmp_path, fake.url, upstreams=()))
    assert {one.verdict for one in seen.values()} == {OK}
    own = {"store", "state", "room", "leftovers", "settings", "ca", "database", "files"}
    assert seen.keys() == own | {"dns", "upstream", "clock"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


async def test_nothing_is_made_where_there_is_no_store(tmp_path: Path) -> None:
    """It is not wrong that a new mirror has none; a folder that could not be made is."""
    assert (await found(offline(tmp_path)))["store"].verdict is WARNING
    missing = offline(tmp_path, cache={"directory": tmp_path / "a" / "b"})
    assert (await found(missing))["store"].verdict is PROBLEM
    assert list(tmp_path.iterdir()) == []


async def test_it_says_who_holds_the_store(tmp_path: Path) -> None:
    """A running mirror is not in the way of being looked at."""
    async with running_mirror(offline(tmp_path)) as served:
        seen = await found(offline(tmp_path))
    assert seen["lock"].said == (
        f"the store is in use by mirror serve (process {os.getpid()}), which serves at {served.url}"
    )
    assert {one.verdict for one in seen.values()} == {OK}


async def test_a_folder_that_is_none_is_a_problem(tmp_path: Path) -> None:
    """And so is a state where Ollama tidies up."""
    layout = made(tmp_path)
    layout.blobs.rmdir()
    layout.blobs.write_bytes(b"")
    assert (await found(offline(tmp_path)))["store"].verdict is PROBLEM
    inside = offline(tmp_path, cache={"directory": tmp_path / "store", "state": tmp_path / "store" / "manifests" / "s"})
    said = [one async for one in examine(inside, ())]
    assert said[0].verdict is PROBLEM
    assert "cannot be inside" in said[0].said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cache__max_size": 1000}, "cache.max_size is 1 kB"),
        ({"cache__min_free": "100%"}, "less than the"),
        ({"cache__max_size": "900PB"}, "cannot be reached"),
    ],
)
async def test_too_little_room_is_a_warning(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """The mirror goes on, and keeps less than somebody wanted."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
    room = (await found(offline(tmp_path, **changes)))["room"]
    assert room.verdict is WARNING
    assert said in room.said
    assert room.advice


async def test_what_a_crash_left_is_said(tmp_path: Path) -> None:
    """It explains where the bytes are, and that nothing needs to be done."""
    layout = made(tmp_path)
    (layout.temporary / "x").write_bytes(b"x")
    (layout.quarantine / "y").write_bytes(b"y")
    seen = await found(offline(tmp_path))
    assert (seen["leftovers"].verdict, seen["damage"].verdict) == (WARNING, WARNING)
    assert "next start" in seen["leftovers"].advice
    assert files(layout.state) == {"tmp/x", "quarantine/y"}


async def test_a_setting_without_effect_is_said(tmp_path: Path) -> None:
    """Somebody counts on it; one that is at its default nobody does."""
    said = offline(tmp_path, security={"allowed_models": ["llama3.2"]})
    [seen] = effects(said, ("security.allowed_models", "security.blocked_models"))
    assert (seen.verdict, seen.said) == (WARNING, "security.allowed_models has no effect in this version")
    assert (await found(said))["settings"].verdict is OK


async def test_an_upstream_that_is_away_is_a_problem(tmp_path: Path) -> None:
    """But not for a mirror that is told to ask nobody."""
    made(tmp_path)
    assert (await found(settings(tmp_path, "http://127.0.0.1:9", upstreams=())))["upstream"].verdict is PROBLEM
    assert (await found(offline(tmp_path)))["upstream"].verdict is OK


@pytest.mark.parametrize(
    ("ahead", "verdict", "said"),
    [(0, OK, "within"), (300, WARNING, "behind"), (-300, WARNING, "ahead of"), (90_000, PROBLEM, "behind")],
)
async def test_a_clock_that_is_off_is_told_by_the_upstreams(
    tmp_path: Path, ahead: int, verdict: Verdict, said: str
) -> None:
    """A wrong one makes models too old, or never old."""
    date = formatdate(time.time() + ahead, usegmt=True)
    async with answering(f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode()) as (url, _):
        clock = (await found(settings(tmp_path, url, upstreams=())))["clock"]
    assert (clock.verdict, said in clock.said) == (verdict, True)


@asynccontextmanager
async def an_ollama(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[int]:
    """A process whose name is ollama, with this environment; yields its id."""
    program = folder / "ollama"
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments, stdin=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"], **environment}
    )
    try:

        async def started() -> bool:
            return Path(f"/proc/{process.pid}/comm").read_text() == "ollama\n"

        await eventually(started)
        yield process.pid
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(("noprune", "verdict"), [(None, WARNING), ("0", WARNING), ("1", OK), ("yes", OK)])
async def test_the_environment_of_an_ollama_that_runs_is_looked_at(
    tmp_path: Path, noprune: str | None, verdict: Verdict
) -> None:
    """One that prunes at its start deletes blobs that no manifest names yet."""
    made(tmp_path)
    environment = {"OLLAMA_MODELS": str(tmp_path / "store"), **({"OLLAMA_NOPRUNE": noprune} if noprune else {})}
    async with an_ollama(tmp_path, "serve", **environment) as number:
        here = [one for one in running() if str(number) in one.who]
        seen = (await found(sharing(tmp_path), *here))["ollama"]
        assert seen.verdict is verdict
        assert f"process id {number}" in seen.said
        assert (await found(offline(tmp_path), *here))["ollama"].verdict is PROBLEM


async def test_a_client_is_no_server(tmp_path: Path) -> None:
    """``ollama run`` has the same name and no folder."""
    async with an_ollama(tmp_path, "run", "llama3.2") as number:
        assert not [one for one in running() if str(number) in one.who]


async def test_what_cannot_be_told_is_said_to_be_so(tmp_path: Path) -> None:
    """Rather than that all is well."""
    made(tmp_path)
    for neighbours in ((Neighbour("it", None),), (Neighbour("it", {}),), ()):
        seen = (await found(sharing(tmp_path), *neighbours))["ollama"]
        assert seen.verdict is WARNING
        assert seen.said.startswith("cannot tell")
    other = (await found(sharing(tmp_path), Neighbour("it", {"HOME": "/home/x"})))["ollama"]
    assert (other.verdict, "/home/x/.ollama/models" in other.said) == (WARNING, True)
    assert "ollama" not in await found(offline(tmp_path), Neighbour("it", {"HOME": "/home/x"}))


def test_a_unit_and_what_overrides_it_are_read(tmp_path: Path) -> None:
    """They can be read by everybody, where a process' environment cannot."""
    assert installed(tmp_path) is None
    (tmp_path / "ollama.service").write_text(
        '[Service]\nUser=root\n# Environment=OLLAMA_MODELS=/comment\nEnvironment="PATH=/bin" OLLAMA_MODELS=/old \\\n'
        " OLLAMA_DEBUG=1\nExecStart=/usr/bin/ollama serve\n"
    )
    found_now = installed(tmp_path)
    assert found_now is not None
    assert (found_now.models, found_now.prunes) == (Path("/old"), True)
    (tmp_path / "ollama.service.d").mkdir()
    (tmp_path / "ollama.service.d" / "override.conf").write_text(
        '[Service]\nEnvironment="OLLAMA_MODELS=/srv/my models"\nEnvironment=OLLAMA_NOPRUNE=true\nEnvironment="broken\n'
    )
    found_now = installed(tmp_path)
    assert found_now is not None
    assert (found_now.models, found_now.prunes) == (Path("/srv/my models"), False)


async def test_folders_that_are_served_from_too_are_looked_at(tmp_path: Path) -> None:
    """A typing error there is silent otherwise."""
    (tmp_path / "there").mkdir()
    other = made(tmp_path / "there")
    folders = (tmp_path / "nowhere", other.root, made(tmp_path).root)
    seen = [one async for one in examine(offline(tmp_path, cache__also_from=folders), ()) if one.matter == "also_from"]
    assert [one.verdict for one in seen] == [WARNING, OK, WARNING]


async def test_the_command_ends_with_1_where_there_is_a_problem(tmp_path: Path) -> None:
    """A script can ask it; lines for people say what to do."""
    store = str(tmp_path / "store")
    well = await mirror("doctor", "--store", store, "--json", env={"OLLAMA_MIRROR_OFFLINE": "true"})
    assert well.code == 0, well.err
    assert {"matter", "verdict", "said", "advice"} == json.loads(well.out)[0].keys()
    ill = await mirror("doctor", "--store", store, env={"OLLAMA_MIRROR_UPSTREAM_URL": "http://127.0.0.1:9"})
    assert (ill.code, ill.err) == (1, "")
    [line] = [one for one in ill.out.splitlines() if one.startswith("problem")]
    assert "http://127.0.0.1:9 does not answer" in line
    assert " -> check the network" in line
    said = (await mirror("doctor", "--help")).out
    assert "Examples:" in said


async def test_the_database_is_looked_at_and_left_as_it_is(tmp_path: Path) -> None:
    """None yet, one that is well, one that is damaged, a server that does not answer."""
    said = offline(tmp_path)
    file = said.cache.state_directory / "mirror.db"
    file.parent.mkdir()
    assert (await found(said))["database"].said.startswith("there is none yet")
    await (await open_database(None, file)).dispose()
    before = {path: path.stat().st_mtime_ns for path in (file, file.parent)}
    assert (await found(said))["database"] == Finding("database", OK, f"can be read; its schema is {SCHEMA_VERSION}")
    assert {path: path.stat().st_mtime_ns for path in (file, file.parent)} == before
    file.write_bytes(b"no database " * 500)
    assert (await found(said))["database"].verdict is WARNING
    away = offline(tmp_path, database__url=f"postgresql+asyncpg://mirror@127.0.0.1:{free_port()}/mirror")
    assert (await found(away))["database"].verdict is PROBLEM


async def test_a_log_that_cannot_be_written_and_too_few_files_are_said(tmp_path: Path) -> None:
    """Of the process that runs, where one does: its limit is the unit's and not the shell's."""
    nowhere = await found(offline(tmp_path, logging__file=tmp_path / "no" / "mirror.log"))
    assert nowhere["log"].verdict is PROBLEM
    assert (await found(offline(tmp_path, logging__file=tmp_path / "mirror.log")))["log"].verdict is OK
    few = await asyncio.create_subprocess_exec("sh", "-c", "ulimit -n 600 && exec sleep 60")
    try:
        for wanted, verdict in ((16, OK), (4096, WARNING)):
            said = settings(tmp_path, "http://127.0.0.1:9", listen__max_connections=wanted)

            async def is_so(said: Settings = said, verdict: Verdict = verdict) -> bool:
                return descriptors(said, few.pid).verdict is verdict

            await eventually(is_so)
    finally:
        few.terminate()
        await few.wait()


async def test_each_ollama_that_is_named_is_asked(tmp_path: Path) -> None:
    """One that answers, and one that is not there; where the settings say auto there may be none."""
    async with running_fake_ollama(tmp_path / "ollama") as ollama:
        away = f"http://127.0.0.1:{free_port()}"
        said = offline(tmp_path, proxy__backends=[ollama.url, away])
        findings = [one async for one in examine(said, ()) if one.matter == "ollama"]
        assert [one.verdict for one in findings] == [OK, PROBLEM]
        assert "is Ollama" in findings[0].said
        assert away in findings[1].said
    assert "ollama" not in await found(offline(tmp_path))
