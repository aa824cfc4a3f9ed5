"""Webhooks of prompt jobs: what they are told, that it is never lost, and where they may not lead."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog

from mirror.db import open_database
from mirror.errors import ForbiddenAddress
from mirror.prompts import Ends, Prompts, State, Webhooks, parse_prompt
from mirror.pulls import Posting, WallClock
from mirror.upstream.addresses import PublicAddresses
from tests.fakes.ollama import running_fake_ollama
from tests.fakes.registry import running_fake_registry
from tests.process import serving
from tests.prompts import Prompting, prompting
from tests.receiving import is_ours, receiving
from tests.support import SOON_S, eventually, machine

SECRET = "a secret"
HERE = {"prompts__webhook_hosts": ("127.0.0.1",), "prompts__webhook_secret": SECRET}


@asynccontextmanager
async def another_program() -> AsyncIterator[tuple[str, Callable[[], Awaitable[Any]]]]:
    """A receiver in a process of its own: its URL, and what it was told next."""
    command = (sys.executable, "-m", "tests.fakes.receiver", SECRET)
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
    assert process.stdout is not None
    lines = process.stdout

    async def told() -> Any:
        return json.loads(await lines.readline())

    try:
        yield (await lines.readline()).decode().strip(), told
    finally:
        process.terminate()
        await process.communicate()


async def test_another_program_is_told_how_each_ended(tmp_path: Path) -> None:
    """With what it answered, why it failed, or that it was cancelled; signed, once each, by the id of the prompt."""
    async with another_program() as (url, told), prompting(tmp_path, **HERE) as (at, me), asyncio.timeout(SOON_S):
        done = await me.submit(webhook=f"{url}/ends?to=me")
        said = await told()
        assert said["view"] == {
            "event": "prompt.completed",
            "id": done,
            "status": "completed",
            "result": "one two three four",
        }
        assert (said["sound"], said["delivery"]) == (True, done)
        failed = await me.submit(model="nope", webhook=url, run="idle")
        view = (await told())["view"]
        assert (view["event"], view["id"], view["run"]) == ("prompt.failed", failed, "idle")
        assert "not found" in view["error"]
        at.ollama.pace.hold()
        await me.submit()
        taken_back = await me.submit(webhook=url)
        await me.get(f"prompt/{taken_back}", method="DELETE")
        assert (await told())["view"] == {"event": "prompt.cancelled", "id": taken_back, "status": "cancelled"}
        assert "webhook" not in (await me.get(f"prompt/{done}/status"))[1]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://localhost/",
        "http://127.1/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.7:5678/",
        "http://192.168.1.1/",
        "http://0.0.0.0/",
        "ftp://example.org/",
        "http://u:hidden@example.org/",
        "http://example.org/#hidden",
        "hidden",
        "http://" + "x" * 2000,
        7,
    ],
)
async def test_what_leads_into_a_private_network_is_refused(url: Any, tmp_path: Path) -> None:
    """In whatever way the address is written; and what is no URL. Nothing is kept."""
    async with prompting(tmp_path, prompts__webhook_hosts=("10.0.0.7:5679",)) as (_, me):
        status, said = await me.post({"prompt": "x", "webhook": url})
        assert (status, "webhook: " in said["error"], "hidden" in said["error"]) == (400, True, False)
        assert (await me.get("prompts"))[1]["total"] == 0


async def test_a_name_that_leads_elsewhere_later_is_refused_when_it_is_told(tmp_path: Path) -> None:
    """The address that a connection gets is the one that was looked at."""
    addresses = PublicAddresses(("hooks.lan",))
    with pytest.raises(ForbiddenAddress):
        await addresses.resolve("localhost", 80)
    assert await PublicAddresses(("localhost",)).resolve("localhost", 80)
    assert await PublicAddresses(("LOCALHOST:80",)).resolve("localhost", 80)
    with pytest.raises(ForbiddenAddress):
        await PublicAddresses(("localhost:80",)).resolve("localhost", 81)
    await addresses.close()
    async with receiving() as receiver, ending(tmp_path, hosts=()) as (prompts, _), asyncio.timeout(SOON_S):
        with structlog.testing.capture_logs() as logs:
            port = receiver.url.rpartition(":")[2]
            for host in ("localhost", "127.0.0.1"):
                await end(prompts, f"http://{host}:{port}/hidden")

            async def given_up() -> bool:
                return [line["log_level"] for line in logs].count("warning") == 2

            await eventually(given_up)
        assert receiver.posts == []
        assert all("no public address" in line["problem"] for line in logs)
        assert "hidden" not in str(logs)


@asynccontextmanager
async def ending(
    folder: Path,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    waits_s: tuple[float, ...] = (0.001, 0.002, 0.004),
    timeout_s: float = 0.5,
) -> AsyncIterator[tuple[Prompts, Ends]]:
    """Prompts whose webhooks are told, with short waits."""
    engine = await open_database(None, folder / "db")
    prompts, ends = Prompts(engine, 1000, 1 << 20), Ends(engine)
    await prompts.load()
    posting = Posting(SECRET, timeout_s=timeout_s)
    webhooks = Webhooks(prompts, ends, posting, PublicAddresses(hosts), WallClock(), waits_s=waits_s)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(webhooks.run())
            try:
                yield prompts, ends
            finally:
                task.cancel()
    finally:
        await engine.dispose()


async def end(prompts: Prompts, url: str, user: str = "ann") -> str:
    """Have a prompt completed; its id."""
    prompt = await prompts.ask(parse_prompt({"prompt": "say", "webhook": url}, "m"), user)
    await prompts.ended(prompt, State.COMPLETED, result="so")
    return prompt.id


@pytest.mark.parametrize("statuses", [(500, 404), (302, 302), (0, 503)])
async def test_what_was_not_taken_is_told_again(statuses: tuple[int, ...], tmp_path: Path) -> None:
    """After a refusal, a redirect, which is not followed, and silence; under one id, so that it counts once."""
    async with receiving(*statuses) as receiver, ending(tmp_path) as (prompts, ends), asyncio.timeout(SOON_S):
        id_ = await end(prompts, f"{receiver.url}/here")
        await receiver.until(lambda: len(receiver.posts) == 3)

        async def nothing_is_left() -> bool:
            now = prompts.now()
            return not await ends.due(now) and await ends.next_after(now) is None

        await eventually(nothing_is_left)
        assert [(one.path, one.headers["X-Mirror-Delivery"]) for one in receiver.posts] == [("/here", id_)] * 3
        last = receiver.posts[-1]
        assert is_ours(last.headers, last.body, SECRET, int(last.headers["X-Mirror-Timestamp"]))


async def test_a_silent_receiver_holds_up_no_other(tmp_path: Path) -> None:
    """However much it is to be told."""
    async with receiving(*[0] * 100) as silent, receiving() as receiver, ending(tmp_path) as (prompts, _):
        for _ in range(40):
            await end(prompts, silent.url)
        for _ in range(5):
            await end(prompts, receiver.url)
        await receiver.until(lambda: len(receiver.posts) == 5)
        assert len(silent.posts) < 40


async def test_many_silent_ports_of_one_user_leave_places_for_others(tmp_path: Path) -> None:
    """Each of them is a receiver of its own, and together they are one machine's and one user's."""
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(receiving(*[0] * 100)) for _ in range(12)]
        receiver = await stack.enter_async_context(receiving())
        prompts, _ = await stack.enter_async_context(ending(tmp_path, hosts=("127.0.0.1", "localhost"), timeout_s=60))
        for one in silent:
            for _ in range(4):
                await end(prompts, one.url, "mallory")
        for _ in range(5):
            await end(prompts, receiver.url.replace("127.0.0.1", "localhost"), "ann")
        async with asyncio.timeout(SOON_S):  # within which no place that a silent one has taken becomes free
            await receiver.until(lambda: len(receiver.posts) == 5)


async def test_thousands_that_are_due_hide_nobody_elses(tmp_path: Path) -> None:
    """Users come in turn, and the receivers of one."""
    engine = await open_database(None, tmp_path / "db")
    try:
        prompts, ends = Prompts(engine, 100_000, 1 << 30), Ends(engine)
        await prompts.load()
        for number in range(1200):
            await end(prompts, f"http://dead.example/{number % 2}", "mallory")
        for url, user in (("http://late.example/", "mallory"), ("http://b.example/", "ann")):
            await end(prompts, url, user)
        first = await ends.due(prompts.now() + timedelta(seconds=1))
        assert {one.user for one in first[:2]} == {"mallory", "ann"}
        assert {urlsplit(one.url).hostname for one in first[:5]} == {"dead.example", "late.example", "b.example"}
        assert len(first) == 500
    finally:
        await engine.dispose()


async def test_what_was_not_told_is_kept_and_told_by_the_next_life(tmp_path: Path) -> None:
    """Whatever its age."""
    async with receiving(500) as receiver:
        async with ending(tmp_path, waits_s=(3600.0,)) as (prompts, ends), asyncio.timeout(SOON_S):
            id_ = await end(prompts, receiver.url)

            async def is_put_off() -> bool:
                return [one.tries for one in await ends.due(prompts.now() + timedelta(hours=2))] == [1]

            await eventually(is_put_off)
            assert await prompts.forget_before(prompts.now() + timedelta(days=1)) == 0
            (one,) = await ends.due(prompts.now() + timedelta(hours=2))
            await ends.later(one, prompts.now())
        async with ending(tmp_path) as (prompts, _), asyncio.timeout(SOON_S):
            await receiver.until(lambda: len(receiver.posts) == 2)
            assert receiver.posts[1].headers["X-Mirror-Delivery"] == id_


async def test_a_kill_between_the_end_and_the_telling_loses_nothing(tmp_path: Path) -> None:
    """The receiver had not answered yet: it is told once more."""
    async with (
        running_fake_registry() as registry,
        running_fake_ollama(tmp_path / "ollama") as ollama,
        receiving(0) as receiver,
    ):
        ollama.folder.add("m")
        env = {"OLLAMA_URL": ollama.url, "OLLAMA_MODEL": "m", "OLLAMA_MIRROR_PROMPTS_WEBHOOK_HOSTS": "127.0.0.1"}
        store = tmp_path / "store"
        async with serving(store, registry.url, env=env) as (url, process), machine(url) as client:
            id_ = await Prompting(client).submit(webhook=receiver.url)
            await receiver.until(lambda: len(receiver.posts) == 1)
            process.kill()
            await process.wait()
        async with serving(store, registry.url, env=env):
            await receiver.until(lambda: len(receiver.posts) == 2)
        assert [one.headers["X-Mirror-Delivery"] for one in receiver.posts] == [id_] * 2
        assert receiver.posts[1].view == {
            "event": "prompt.completed",
            "id": id_,
            "status": "completed",
            "result": "one two three four",
        }
