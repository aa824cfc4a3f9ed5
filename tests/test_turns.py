"""Turns on Ollamas: whose it is, where, what happens when one fails or a client leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.dispatch import jain, model_key
from mirror.values import ModelName
from tests.behind import NOBODY, Fronted, asked, closed, fronted
from tests.fakes.ollama import FakeOllama, running_fake_ollama
from tests.fakes.ollama_trouble import Trouble
from tests.net import answering
from tests.support import SOON_S, eventually, noise

GENERATE = {"model": "m", "prompt": "say", "stream": False}
ROUTES = (
    ("/api/generate", {"model": "m", "prompt": "say"}),
    ("/api/chat", {"model": "m", "messages": [{"role": "user", "content": "say"}]}),
    ("/v1/chat/completions", {"model": "m", "stream": True, "messages": [{"role": "user", "content": "say"}]}),
)


@dataclass(frozen=True)
class Many:
    """A mirror in front of several Ollamas, the first of which is ``at.ollama``."""

    at: Fronted
    ollamas: tuple[FakeOllama, ...]

    def served(self) -> list[int]:
        """How many requests for an answer each got."""
        return [len(one.troubles.of("/api/generate")) for one in self.ollamas]

    async def seen(self) -> None:
        """Wait until the pool has seen them all."""

        async def all_online() -> bool:
            pool = self.at.mirror.parts.pool
            return pool.lone or all(one.online for one in pool)

        await eventually(all_online)


@asynccontextmanager
async def many(folder: Path, count: int = 3, *, models: str = "m", **changes: Any) -> AsyncIterator[Many]:
    """Run ``count`` Ollamas that have ``models`` behind one mirror."""
    async with AsyncExitStack() as stack:
        ollamas = [await stack.enter_async_context(running_fake_ollama(folder / f"o{one}")) for one in range(count)]
        for one in ollamas:
            for text in models.split():
                one.folder.add(text)
        said = {"proxy__backends": [one.url for one in ollamas], **changes}
        at = await stack.enter_async_context(fronted(folder, **said))
        many = Many(at, tuple(ollamas))
        await many.seen()
        yield many


async def post(at: Fronted, user: str = "", path: str = "/api/generate", **said: Any) -> tuple[int, Any]:
    """Ask for an answer as a user."""
    headers = {"X_User_ID": user} if user else {}
    return await asked(at.client, path, {**GENERATE, **said}, **headers)


async def everything(answer: aiohttp.ClientResponse, into: bytearray) -> None:
    """Read an answer to its end, however that is."""
    while chunk := await answer.content.readany():
        into += chunk


async def waiting(at: Fronted, count: int) -> None:
    """Wait until so many wait for a turn."""

    async def so_many() -> bool:
        return at.mirror.parts.turns.waiting == count

    await eventually(so_many)


async def test_one_at_a_time_and_users_in_turn(tmp_path: Path) -> None:
    """With the seed's header, from this machine; the one who throws in many waits for the others."""
    async with fronted(tmp_path, dispatch__fairness="turns") as at, asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        order: list[str] = []

        async def ask(user: str) -> None:
            assert (await post(at, user))[0] == 200
            order.append(user)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(ask("greedy"))
                await waiting(at, number)
            for number, user in enumerate(("ann", "bob"), 4):
                group.create_task(ask(user))
                await waiting(at, number)
            assert at.mirror.parts.turns.users()[0].running == 1
            at.ollama.pace.release(100)
        assert order == ["greedy", "ann", "bob", "greedy", "greedy", "greedy"]
        assert [one.running for one in at.mirror.parts.turns.users()] == [0, 0, 0]


async def test_the_answer_says_where_it_came_from_and_how_long_that_took(tmp_path: Path) -> None:
    """For people who look why it is slow."""
    async with fronted(tmp_path) as at, at.client.session.post(at.client.url("/api/generate"), json=GENERATE) as answer:
        assert answer.headers["X-Mirror-Node"] == at.ollama.url.removeprefix("http://")
        assert answer.headers["X-Mirror-Queue-Position"] == "1"
        assert int(answer.headers["X-Mirror-Queue-Ms"]) >= 0


async def test_a_client_that_leaves_while_it_waits_never_reaches_an_ollama(tmp_path: Path) -> None:
    """It is gone from the queue at once; one that leaves while it runs stops its generation."""
    async with fronted(tmp_path) as at, asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        async with asyncio.TaskGroup() as group:
            runs = group.create_task(post(at, "ann"))
            await at.ollama.troubles.wait_for(lambda: bool(at.ollama.troubles.of("/api/generate")))
            waits = [group.create_task(post(at, "bob")) for _ in range(3)]
            await waiting(at, 3)
            for one in waits:
                one.cancel()
            await waiting(at, 0)
            runs.cancel()
        await at.ollama.troubles.wait_for(lambda: at.ollama.troubles.of("/api/generate")[0].left)
        assert len(at.ollama.troubles.of("/api/generate")) == 1
        at.ollama.pace.release(100)
        assert (await post(at))[0] == 200


async def test_who_waits_too_long_is_told_so_in_the_shape_of_its_face(tmp_path: Path) -> None:
    """503 and when to come again; a queue that is full says 429."""
    async with (
        fronted(tmp_path, dispatch__timeout=0.1, dispatch__max_waiting_per_user=1) as at,
        asyncio.timeout(SOON_S),
    ):
        at.ollama.pace.hold()
        async with asyncio.TaskGroup() as group:
            runs = group.create_task(post(at, "ann"))
            await at.ollama.troubles.wait_for(lambda: bool(at.ollama.troubles.of("/api/generate")))
            waits = group.create_task(post(at, "bob", "/v1/chat/completions", messages=[]))
            await waiting(at, 1)
            async with at.client.session.post(
                at.client.url("/api/generate"), json=GENERATE, headers={"X-User-ID": "bob"}
            ) as full:
                assert (full.status, full.headers["Retry-After"]) == (429, "5")
                assert "waiting already" in (await full.json())["error"]
            status, said = await waits
            assert (status, said["error"]["type"], "dispatch.timeout" in said["error"]["message"]) == (
                503,
                "api_error",
                True,
            )
            at.ollama.pace.release(100)
            assert (await runs)[0] == 200


async def test_a_blocked_user_is_refused_and_others_are_not(tmp_path: Path) -> None:
    """Live, both ways."""
    async with fronted(tmp_path) as at:
        at.mirror.parts.turns.block("ann")
        assert (await post(at, "ann"))[0] == 403
        assert (await post(at, "bob"))[0] == 200
        at.mirror.parts.turns.unblock("ann")
        assert (await post(at, "ann"))[0] == 200


async def test_headers_of_users_count_from_here_and_from_those_who_are_trusted(tmp_path: Path) -> None:
    """With a key the key's user counts, unless it is a gateway's."""
    key = {"Authorization": "Bearer word"}
    said: dict[str, Any] = {"security__api_key": "word", "security__anonymous": ["none"]}
    async with fronted(tmp_path / "one", **said) as at:
        for headers in ({"X_User_ID": "ann"}, {"X_User_ID": "bob", "X_Forwarded_For": "10.0.0.9"}):
            await asked(at.client, "/api/generate", GENERATE, **headers, **key)
        (mine,) = [one.user for one in at.mirror.parts.turns.users()]
        assert mine not in ("ann", "bob")
    async with fronted(tmp_path / "two", dispatch__trusted_users=[mine], **said) as at:
        await asked(at.client, "/api/generate", GENERATE, X_User_ID="ann", **key)
        assert [one.user for one in at.mirror.parts.turns.users()] == ["ann"]
    async with fronted(tmp_path / "three") as at:
        await asked(at.client, "/api/generate", GENERATE, X_User_ID="ann")
        assert [one.user for one in at.mirror.parts.turns.users()] == ["ann"]


async def test_work_is_spread_over_ollamas_that_have_the_model(tmp_path: Path) -> None:
    """Three at once on three; one that lacks the model gets none."""
    async with many(tmp_path, 3) as them, asyncio.timeout(SOON_S):
        for one in them.ollamas:
            one.pace.hold()
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(post(them.at))
            for one in them.ollamas:
                await one.troubles.wait_for(lambda one=one: bool(one.troubles.of("/api/generate")))  # type: ignore[misc]
                one.pace.release(10)
        assert them.served() == [1, 1, 1]
        them.ollamas[1].folder.add("only")
        await them.at.mirror.parts.pool.look(next(iter([*them.at.mirror.parts.pool][1:])))
        assert (await post(them.at, model="only"))[0] == 200
        assert them.served() == [1, 2, 1]


@pytest.mark.parametrize("how", ["down", "500", "503", "reset"])
async def test_what_had_no_byte_yet_is_answered_by_another(how: str, tmp_path: Path) -> None:
    """Twenty of twenty, whatever one of two does."""
    async with many(tmp_path, 2) as them, asyncio.timeout(SOON_S):
        bad = them.ollamas[0]
        if how == "down":
            await bad.down()
        elif how == "reset":
            bad.troubles.add(Trouble.CUT, "/api/generate", after=0, times=None)
        else:
            bad.troubles.add(Trouble.STATUS, "/api/generate", status=int(how), times=None)
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(post(them.at, f"u{number}", stream=True)) for number in range(20)]
        assert [one.result()[0] for one in answers] == [200] * 20
        assert len(them.ollamas[1].troubles.of("/api/generate")) == 20


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        b"",
    ],
)
async def test_an_ollama_that_answers_nonsense_costs_nobody_an_answer(answer: bytes, tmp_path: Path) -> None:
    """What comes of it is no byte of an answer; the other has one."""
    async with answering(answer) as (url, _), running_fake_ollama(tmp_path / "good") as good:
        good.folder.add("m")
        async with fronted(tmp_path, proxy__backends=[url, good.url]) as at, asyncio.timeout(SOON_S):
            bad = next(one for one in at.mirror.parts.pool if one.backend.url == url)
            for _ in range(3):
                bad.online, bad.models = True, frozenset({model_key("m")})
                assert (await post(at))[0] == 200
            assert [one.active for one in at.mirror.parts.pool] == [0, 0]


async def test_an_ollama_that_lies_about_its_models_is_passed_over(tmp_path: Path) -> None:
    """It says that it has a model, and then that it has not."""
    async with many(tmp_path, 2) as them:
        first, second = sorted(them.ollamas, key=lambda one: one.url)
        second.folder.add("only")
        for one in them.at.mirror.parts.pool:
            one.models |= {model_key("only")}
        assert (await post(them.at, model="only"))[0] == 200
        assert (len(first.troubles.of("/api/generate")), len(second.troubles.of("/api/generate"))) == (1, 1)
        assert (await post(them.at, model="only"))[0] == 200
        assert len(first.troubles.of("/api/generate")) == 1


async def test_all_that_fail_hand_back_what_was_said(tmp_path: Path) -> None:
    """The Ollama's own text and status; and a request that none can do makes none of them suspect."""
    async with many(tmp_path, 2, dispatch__max_failures=1) as them:
        for one in them.ollamas:
            one.troubles.add(Trouble.STATUS, "/api/generate", status=500)
        assert await post(them.at) == (500, {"error": "the runner has stopped"})
        assert [one.failures for one in them.at.mirror.parts.pool] == [0, 0]
        assert (await post(them.at))[0] == 200
        for one in them.ollamas:
            await one.down()
        status, said = await post(them.at)
        assert (status, "does not answer" in said["error"]) == (502, True)


async def test_an_ollama_that_fails_too_often_is_left_alone_for_a_while(tmp_path: Path) -> None:
    """And tried again after that."""
    async with many(tmp_path, 2, dispatch__max_failures=1, dispatch__probe_after=3600) as them:
        bad, good = sorted(them.ollamas, key=lambda one: one.url)
        bad.troubles.add(Trouble.STATUS, "/api/generate", status=500, times=None)
        for _ in range(5):
            assert (await post(them.at))[0] == 200
        assert len(bad.troubles.of("/api/generate")) == 1
        bad.troubles.clear()
        pool = them.at.mirror.parts.pool
        pool.put(replace(next(one for one in pool if one.backend.url == good.url), draining=True))
        assert (await post(them.at))[0] == 502
        pool.limits.probe_after_s = 0.0
        assert (await post(them.at))[0] == 200


async def test_an_ollama_that_comes_back_is_used_again_within_three_seconds(tmp_path: Path) -> None:
    """It is looked at every second meanwhile."""
    async with many(tmp_path, 1, dispatch__max_failures=1) as them, asyncio.timeout(SOON_S):
        only = them.ollamas[0]
        await only.down()
        assert (await post(them.at))[0] == 502
        await only.up()
        assert (await post(them.at))[0] == 200
    async with many(tmp_path / "two", 2) as them, asyncio.timeout(SOON_S):
        first = them.ollamas[0]
        await first.down()
        for _ in range(3):
            assert (await post(them.at))[0] == 200
        await first.up()
        await them.seen()


@pytest.mark.parametrize(("path", "said"), ROUTES)
async def test_after_the_first_byte_there_is_an_error_and_no_clean_end(
    path: str, said: dict[str, Any], tmp_path: Path
) -> None:
    """Half an answer of one and half of another would be nobody's answer."""
    async with many(tmp_path, 2) as them:
        for one in them.ollamas:
            one.troubles.add(Trouble.CUT, path, after=2)
        async with them.at.client.session.post(them.at.client.url(path), json=said) as answer:
            got = bytearray()
            with pytest.raises(aiohttp.ClientPayloadError):
                await everything(answer, got)
        assert answer.status == 200
        assert b"does not answer" in got
        assert sum(len(one.troubles.of(path)) for one in them.ollamas) == 1


async def test_a_model_that_nobody_has_gets_ollama_s_own_words(tmp_path: Path) -> None:
    """Programs pull when they read them."""
    async with many(tmp_path, 2) as them:
        assert await post(them.at, model="nope") == (404, {"error": "model 'nope' not found"})
        assert (await post(them.at, model=""))[0] == 400


@pytest.mark.parametrize("count", [1, 2])
async def test_a_model_that_only_the_store_has_is_delivered_and_run(count: int, tmp_path: Path) -> None:
    """Nobody has to pull what is here."""
    async with many(tmp_path, count, **closed()) as them, asyncio.timeout(SOON_S):
        them.at.registry.add_model("library/far:latest", {MODEL_TYPE: noise(10_000)})
        await them.at.mirror.parts.puller.pull(ModelName.parse("far"), lambda _: None)
        status, said = await post(them.at, model="far")
        assert (status, said["response"]) == (200, "one two three four")


async def test_an_alias_is_another_name_of_a_model(tmp_path: Path) -> None:
    """For programs that know names of other services only; whatever the letter case."""
    async with fronted(tmp_path, dispatch__aliases={"gpt-4o": "m"}) as at:
        status, said = await asked(at.client, "/v1/chat/completions", {"model": "GPT-4o", "messages": []})
        assert (status, said["model"]) == (200, "m")
        assert json.loads(at.ollama.asked[-1].body)["model"] == "m"


async def test_a_conversation_stays_where_it_was_begun(tmp_path: Path) -> None:
    """What the Ollama remembers of it need not be read again."""
    async with many(tmp_path, 3) as them:
        begun = [{"role": "user", "content": "tell me of the sea"}]
        nodes = set()
        for turn in range(4):
            said = {"model": "m", "messages": begun + [{"role": "user", "content": str(turn)}] * turn, "stream": False}
            async with them.at.client.session.post(them.at.client.url("/api/chat"), json=said) as answer:
                nodes.add(answer.headers["X-Mirror-Node"])
        assert len(nodes) == 1


async def test_a_draining_ollama_gets_nothing_new(tmp_path: Path) -> None:
    """Before it is switched off."""
    async with many(tmp_path, 2) as them:
        next(iter(them.at.mirror.parts.pool)).draining = True
        for _ in range(4):
            assert (await post(them.at))[0] == 200
        assert them.served() == [0, 4]


async def test_backends_that_do_not_answer_are_said_at_once(tmp_path: Path) -> None:
    """A list of two, neither of which is there."""
    async with fronted(tmp_path, proxy__backends=[NOBODY, "http://127.0.0.1:1"]) as at, asyncio.timeout(SOON_S):
        status, said = await post(at)
        assert (status, "127.0.0.1:9" in said["error"], "127.0.0.1:1:" in said["error"]) == (502, True, True)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fairness", ["turns", "cost"])
async def test_twenty_users_beside_a_greedy_one(fairness: str, tmp_path: Path) -> None:
    """Until the first equal user is done, everybody has had the same; nothing is lost, doubled or refused."""
    async with fronted(tmp_path, dispatch__fairness=fairness) as at, asyncio.timeout(100):
        at.ollama.words = ("one",)
        done: dict[str, int] = {}
        shares: list[dict[str, int]] = []

        async def ask(user: str) -> None:
            status, _ = await post(at, user)
            assert status == 200
            done[user] = done.get(user, 0) + 1
            if user != "greedy" and done[user] == 10 and not shares:
                shares.append(dict(done))

        async def ten(user: str) -> None:
            for _ in range(10):
                await ask(user)

        async with asyncio.TaskGroup() as group:
            for _ in range(300):
                group.create_task(ask("greedy"))
            await at.ollama.troubles.wait_for(lambda: bool(at.ollama.troubles.of("/api/generate")))
            for number in range(20):
                group.create_task(ten(f"u{number}"))
        assert done == {"greedy": 300, **{f"u{number}": 10 for number in range(20)}}
        assert len(at.ollama.troubles.of("/api/generate")) == 500
        assert jain([shares[0].get(user, 0) for user in done]) >= 0.95, shares


async def test_several_ollamas_look_like_one(tmp_path: Path) -> None:
    """Their models are listed once each, shown from where they are, and deleted wherever they are."""
    async with many(tmp_path, 2) as them:
        first, second = them.ollamas
        second.folder.add("only", template="{{ .Only }}")
        await them.at.mirror.parts.pool.look([*them.at.mirror.parts.pool][1])
        listed = json.loads((await them.at.client.get("/api/tags")).body)["models"]
        assert sorted(one["model"] for one in listed) == ["m:latest", "only:latest"]
        status, shown = await asked(them.at.client, "/api/show", {"model": "only"})
        assert (status, shown["template"]) == (200, "{{ .Only }}")
        assert json.loads((await them.at.client.get("/api/ps")).body) == {"models": []}
        told = json.loads((await them.at.client.get("/v1/models")).body)["data"]
        assert sorted((one["id"], one["owned_by"], one["created"] > 0) for one in told) == [
            ("m:latest", "library", True),
            ("only:latest", "library", True),
        ]
        assert await asked(them.at.client, "/api/delete", {"model": "m"}, method="DELETE") == (200, "")
        assert (first.folder.names(), [one.short for one in second.folder.names()]) == ([], ["only:latest"])
        await first.down()
        listed = json.loads((await them.at.client.get("/api/tags")).body)["models"]
        assert [one["model"] for one in listed] == ["only:latest"]
