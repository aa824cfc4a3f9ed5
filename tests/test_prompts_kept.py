"""Prompt jobs that outlive the process, and the table that they are in."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from mirror.db import open_database
from mirror.prompts import NoSuchPrompt, Prompts, State, TooManyPrompts, parse_prompt
from mirror.prompts.reading import Bodies, answering
from tests.access import Clock
from tests.behind import asked
from tests.fakes.ollama import running_fake_ollama
from tests.fakes.registry import running_fake_registry
from tests.hub import serving_app
from tests.process import serving
from tests.prompts import Prompting
from tests.support import SOON_S, eventually, machine

ASKED = parse_prompt({"prompt": "say"}, "m")


async def test_a_prompt_that_was_running_at_a_kill_runs_once_more(tmp_path: Path) -> None:
    """And those that waited run once; what was completed stays, with its answer."""
    async with running_fake_registry() as registry, running_fake_ollama(tmp_path / "ollama") as ollama:
        ollama.folder.add("m")
        env = {"OLLAMA_URL": f"{ollama.url}/api/generate", "OLLAMA_MODEL": "m", "OLLAMA_PROXY_QUIET": "1"}
        store = tmp_path / "store"
        async with serving(store, registry.url, env=env) as (url, process), machine(url) as client:
            async with asyncio.timeout(SOON_S):
                me = Prompting(client)
                done = await me.submit("done")
                await me.until(done, "completed")
                ollama.pace.hold()
                ids = [await me.submit(str(number)) for number in range(20)]
                await me.until(ids[0], "processing")
                await ollama.troubles.wait_for(lambda: len(ollama.troubles.of("/api/generate")) == 2)
            process.kill()
            await process.wait()
        await ollama.troubles.wait_for(lambda: ollama.troubles.of("/api/generate")[1].left)
        ollama.pace.release(1000)
        ollama.asked.clear()
        async with serving(store, registry.url, env=env) as (url, _), machine(url) as client:
            async with asyncio.timeout(30):
                me = Prompting(client)
                for one in ids:
                    assert (await me.until(one, "completed"))["result"] == "one two three four"
            assert (await me.until(done, "completed"))["result"] == "one two three four"
            assert len(ollama.troubles.of("/api/generate")) == len(ids)
            assert (await me.get("prompts"))[1]["total"] == len(ids) + 1


async def test_what_is_over_is_kept_for_a_while(tmp_path: Path) -> None:
    """And so is its key; what is under way is never forgotten."""
    clock = Clock()
    engine = await open_database(None, tmp_path / "db")
    try:
        prompts = Prompts(engine, 2, 1000, clock.instant)
        await prompts.load()
        first, second = await prompts.ask(ASKED, "ann", "k"), await prompts.ask(ASKED, "ann")
        with pytest.raises(TooManyPrompts, match="max_queued"):
            await prompts.ask(ASKED, "bob")
        await prompts.ended(first, State.COMPLETED, result="so")
        clock.at += 100
        assert (await prompts.ask(ASKED, "ann", "k")).id == first.id
        assert await prompts.forget_before(clock.instant() - timedelta(seconds=101)) == 0
        assert await prompts.result(first) == "so"
        assert await prompts.forget_before(clock.instant() - timedelta(seconds=99)) == 1
        assert await prompts.find(first.id) is None
        assert await prompts.find(second.id) == second
        assert (await prompts.ask(ASKED, "ann", "k")).id != first.id
    finally:
        await engine.dispose()


async def test_the_next_life_knows_all_of_it(tmp_path: Path) -> None:
    """In the same order, and what had been begun is queued with the tries that it had."""
    engine = await open_database(None, tmp_path / "db")
    try:
        prompts = Prompts(engine, 10, 1000)
        await prompts.load()
        asked = parse_prompt({"prompt": "say", "priority": 2, "run": "idle", "deadline": "2099-01-01T00:00:00Z"}, "m")
        plain, urgent = await prompts.ask(ASKED, "ann"), await prompts.ask(asked, "bob")
        begun = await prompts.begun(plain)
        assert (begun.state, begun.tries) == (State.PROCESSING, 1)
        again = Prompts(engine, 10, 1000)
        await again.load()
        assert [one.id for one in again.waiting] == [urgent.id, plain.id]
        assert again.waiting[0] == urgent
        assert (again.waiting[1].tries, await again.body(plain)) == (1, {"prompt": "say"})
    finally:
        await engine.dispose()


async def test_what_is_under_way_has_a_size_and_what_is_over_has_none(tmp_path: Path) -> None:
    """The disk is not filled by prompts; what was asked is deleted at the end."""
    engine = await open_database(None, tmp_path / "db")
    try:
        prompts = Prompts(engine, 10, 100)
        await prompts.load()
        first = await prompts.ask(parse_prompt({"prompt": "x" * 80}, "m"), "ann")
        with pytest.raises(TooManyPrompts, match="max_size"):
            await prompts.ask(ASKED, "bob")
        await prompts.ended(first, State.COMPLETED, result="so")
        with pytest.raises(NoSuchPrompt):
            await prompts.body(first)
        with pytest.raises(NoSuchPrompt):
            await prompts.ended(first, State.CANCELLED)
        assert (await prompts.result(first), (await prompts.find(first.id) or first).state) == ("so", State.COMPLETED)
        await prompts.ask(ASKED, "bob")
    finally:
        await engine.dispose()


async def test_bodies_that_come_in_together_are_bounded(tmp_path: Path) -> None:
    """One that waits in the middle counts for as much as has come, and no more once it has gone."""
    bodies, half_read = Bodies(100, 150), asyncio.Event()

    async def take(request: web.Request) -> web.StreamResponse:
        async with bodies.reading(request) as said:
            half_read.set()
            if said != "a":
                await asyncio.Event().wait()
            return web.Response()

    app = web.Application()
    app.add_routes([web.post("/", answering(take))])
    async with serving_app(app) as url, machine(url) as client, asyncio.timeout(SOON_S):
        async with asyncio.TaskGroup() as group:
            waits = group.create_task(asked(client, "/", b'"%s"' % (b"b" * 90)))
            await half_read.wait()
            assert (await asked(client, "/", b'"a"'))[0] == 200
            assert (await asked(client, "/", b'"%s"' % (b"c" * 90)))[0] == 429
            assert (await asked(client, "/", b'"%s"' % (b"c" * 99)))[0] == 413
            waits.cancel()

        async def gone() -> bool:
            return (await asked(client, "/", b'%s"a"' % (b" " * 90)))[0] == 200

        await eventually(gone)


async def test_what_was_written_counts_though_its_client_has_left(tmp_path: Path) -> None:
    """It would else be under way for nobody until the next start."""
    engine = await open_database(None, tmp_path / "db")
    try:
        prompts = Prompts(engine, 1000, 1 << 20)
        await prompts.load()
        async with asyncio.TaskGroup() as group:
            for steps in range(60):
                task = group.create_task(prompts.ask(ASKED, "ann"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
        again = Prompts(engine, 1000, 1 << 20)
        await again.load()
        assert {one.id for one in prompts.waiting} == {one.id for one in again.waiting}
    finally:
        await engine.dispose()
