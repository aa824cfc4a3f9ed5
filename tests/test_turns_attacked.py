"""What an attack on turns, the hub and pulls found, each of it held by a test."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.dispatch import FairQueue, Member, Meter, Pool, Rules, Turns, Wanted, model_key
from mirror.errors import NowhereToRun
from mirror.hub import InvalidHeartbeat, parse_heartbeat
from mirror.ollama import Backend
from mirror.pulls.following import pause_s
from mirror.values import MOST_PARTS, ModelName
from tests.access import Clock
from tests.behind import Fronted, asked, closed, fronted
from tests.fakes.ollama import running_fake_ollama
from tests.fakes.ollama_trouble import Trouble
from tests.net import answering, listening
from tests.support import SOON_S, eventually, noise
from tests.test_turns import GENERATE, many, post

CHAT = {"messages": [{"role": "user", "content": "say"}], "options": {"num_predict": 7}, "stream": False}
BIG = [{"deny": ["*"], "over": "100KB"}]


async def beat(at: Fronted, id_: str, **said: Any) -> tuple[int, Any]:
    """Register a node at the mirror's own address."""
    port = at.client.url("/").port
    return await asked(at.client, "/nodes/heartbeat", {"node_id": id_, "port": port, "ipv4": "127.0.0.1", **said})


async def stored(at: Fronted, name: str, size: int) -> None:
    """Have a model in the store, and nowhere else."""
    at.registry.add_model(f"library/{name}:latest", {MODEL_TYPE: noise(size)})
    await at.mirror.parts.puller.pull(ModelName.parse(name), lambda _: None)


async def test_an_alias_leaves_the_rest_of_a_request_as_it_is(tmp_path: Path) -> None:
    """Messages are objects, and a limit counts."""
    async with fronted(tmp_path, dispatch__aliases={"gpt": "m"}) as at:
        assert (await asked(at.client, "/api/chat", {"model": "gpt", **CHAT}))[0] == 200
        assert json.loads(at.ollama.asked[-1].body) == {"model": "m", **CHAT}


@pytest.mark.parametrize("count", ["1" + "0" * 300, "1.7e308", "-5", '"x"', "true"])
async def test_no_count_of_an_ollama_breaks_the_queue(count: str, tmp_path: Path) -> None:
    """Nothing leaks, and the next request is served."""
    body = f'{{"response":"x","done":true,"eval_count":{count},"prompt_eval_count":{count}}}'.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with answering(head + body) as (url, _), fronted(tmp_path, backend=url) as at, asyncio.timeout(SOON_S):
        for _ in range(3):
            assert (await asked(at.client, "/api/generate", GENERATE))[0] == 200
        (user,) = at.mirror.parts.turns.users()
        assert (user.running, user.taken) == (0, 3)
        assert user.cost < 1e9


def test_counts_are_found_behind_more_than_is_kept_of_an_answer() -> None:
    """A long context, vectors, an answer that was not streamed."""
    meter = Meter()
    meter.watch(b'{"response":"' + b"x" * 200_000 + b'","done":true,"prompt_eval_count":30,"eval_count":20000}')
    assert (meter.usage().prompt, meter.usage().made) == (30, 20_000)


def test_an_address_of_ipv4_in_one_of_ipv6_is_no_address_of_a_node() -> None:
    """It led to the hub's own machine."""
    for address in ("::ffff:127.0.0.1", "::ffff:169.254.169.254"):
        with pytest.raises(InvalidHeartbeat):
            parse_heartbeat({"node_id": "n", "port": 1, "ipv6": address, "models": []})


async def test_a_node_that_is_the_mirror_itself_runs_in_no_circle(tmp_path: Path) -> None:
    """It is found out at the first step."""
    async with fronted(tmp_path, backend="none", hub__enabled=True) as at, asyncio.timeout(SOON_S):
        for id_ in ("a", "b"):
            assert (await beat(at, id_, models=["m"], api=True))[0] == 200
        assert (await at.client.get("/api/tags")).status == 200
        status, said = await asked(at.client, "/api/generate", GENERATE)
        assert (status, "is this mirror" in said["error"]) == (508, True)
        assert all(one.active == 0 for one in at.mirror.parts.pool)


async def test_there_is_no_hub_unless_somebody_wants_one(tmp_path: Path) -> None:
    """Else whoever is on the network could have everybody's prompts sent to them."""
    async with fronted(tmp_path) as at:
        assert (await beat(at, "thief", models=["m"], api=True, slots=1000))[0] == 404
        assert (await asked(at.client, "/api/generate", GENERATE))[0] == 200
        assert len(at.ollama.troubles.of("/api/generate")) == 1


@pytest.mark.parametrize("model", ["m", "m:local", "M:latest", "registry.ollama.ai/library/m"])
async def test_jobs_are_under_the_rules_on_models(model: str, tmp_path: Path) -> None:
    """By the caller that showed a key, whatever a header says; what is no name is no job."""
    rules = [{"deny": ["m"], "users": ["anonymous"]}]
    async with fronted(tmp_path, backend="none", hub__enabled=True, security__rules=rules) as at:
        await beat(at, "n", models=["m"])
        said = {"model": model, "prompt": "x"}
        assert (await asked(at.client, "/jobs", said, X_User_ID="boss"))[0] == 403
        assert (await asked(at.client, "/jobs", {"model": "a b", "prompt": "x"}))[0] == 400


async def test_a_rule_on_size_holds_for_what_is_delivered_by_asking_for_it(tmp_path: Path) -> None:
    """And for a pull while the mirror is offline."""
    async with fronted(tmp_path, pulls__delivery="none") as at:
        await stored(at, "big", 500_000)
    async with fronted(tmp_path, security__rules=BIG) as at:
        assert (await post(at, model="big"))[0] == 403
    async with fronted(tmp_path, security__rules=BIG, offline=True) as at:
        assert (await at.json("/api/pull", {"model": "big"}))[0] == 403
        assert "big:latest" not in [one.short for one in at.ollama.folder.names()]


async def test_a_name_of_a_megabyte_is_no_key_of_anything(tmp_path: Path) -> None:
    """Keys are kept; what cannot be a name is for Ollama to refuse."""
    async with fronted(tmp_path) as at:
        status, _ = await post(at, model="x" * 1_000_000)
        assert status in (400, 404)
        assert not any(len(name) > 1000 for one in at.mirror.parts.pool for name in one.loaded)
        assert (await at.json("/api/show", b'{"model": "' + b"x" * 3_000_000 + b'"}'))[0] == 413


async def test_a_request_that_waits_is_woken_when_an_ollama_may_be_tried_again(tmp_path: Path) -> None:
    """Nobody else comes by to see it."""
    async with many(tmp_path, 2, dispatch__max_failures=1, dispatch__probe_after=0.5) as them:
        pool = them.at.mirror.parts.pool
        first, second = pool
        second.draining = True
        first.active = first.slots
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waits = group.create_task(post(them.at))

            async def one_waits() -> bool:
                return them.at.mirror.parts.turns.waiting == 1

            await eventually(one_waits)
            pool.failed(first, "it broke", offline=False)
            first.active -= first.slots
            assert (await waits)[0] == 200


@pytest.mark.parametrize("body", [b"Content-Length: 100\r\n\r\nabc", b"Content-Length: 100\r\n\r\n"])
async def test_an_error_that_is_never_said_to_its_end_is_given_up(body: bytes, tmp_path: Path) -> None:
    """The other Ollama has an answer."""
    never = asyncio.Event()

    async def stuck(head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Broken\r\n" + body)
        await never.wait()

    async with listening(stuck) as port, running_fake_ollama(tmp_path / "good") as good:
        good.folder.add("m")
        backends = [f"http://127.0.0.1:{port}", good.url]
        async with fronted(tmp_path, proxy__backends=backends) as at, asyncio.timeout(SOON_S):
            bad = next(one for one in at.mirror.parts.pool if one.backend.url == backends[0])
            bad.online, bad.models = True, frozenset({model_key("m")})
            assert (await post(at))[0] == 200
        never.set()


async def test_a_silent_ollama_holds_up_no_download(tmp_path: Path) -> None:
    """What is on its way to it is not being fetched."""
    async with fronted(tmp_path, upstream__max_concurrent_downloads=1, **closed()) as at, asyncio.timeout(SOON_S):
        for name in ("one", "two"):
            at.registry.add_model(f"library/{name}:latest", {MODEL_TYPE: noise(1000, len(name))})
        at.ollama.troubles.add(Trouble.HOLD, "/api/pull", times=None)
        for name in ("one", "two"):
            await at.mirror.parts.queue.ask(ModelName.parse(name), "x", at_once=True)

        async def both_are_here() -> bool:
            return len(at.mirror.parts.store.complete) == 2

        await eventually(both_are_here)
        at.ollama.troubles.clear()


async def test_delete_finds_a_model_wherever_it_is_though_it_is_queued(tmp_path: Path) -> None:
    """With the model on the second of two."""
    async with many(tmp_path, 2, **closed()) as them:
        second = them.ollamas[1]
        second.folder.add("only")
        await them.at.mirror.parts.pool.look([*them.at.mirror.parts.pool][1])
        await them.at.mirror.parts.queue.ask(ModelName.parse("only"), "x")
        assert (await asked(them.at.client, "/api/show", {"model": "only"}))[0] == 200
        assert (await asked(them.at.client, "/api/delete", {"model": "only"}, method="DELETE"))[0] == 200
        assert [one.short for one in second.folder.names()] == ["m:latest"]
        assert them.at.mirror.parts.queue.jobs == []


async def test_a_name_on_its_way_is_shown_to_nobody_where_there_are_rules(tmp_path: Path) -> None:
    """Nor is a model run by it."""
    handed = f"127.0.0.1:1/handed-0a-{'b' * 32}/m:latest"
    async with fronted(tmp_path, security__blocked_models=["bad"]) as at:
        at.ollama.folder.add(handed)
        listed = json.loads((await at.client.get("/api/tags")).body)["models"]
        assert [one["model"] for one in listed] == ["m:latest"]
        assert [one["id"] for one in json.loads((await at.client.get("/v1/models")).body)["data"]] == ["m:latest"]
        assert json.loads((await at.client.get("/api/ps")).body) == {"models": []}
        assert (await post(at, model=handed))[0] == 403


async def test_twenty_at_once_are_not_all_the_fifth_of_the_day(tmp_path: Path) -> None:
    """The limit is asked and counted in one."""
    async with fronted(tmp_path, **closed()) as at, asyncio.timeout(SOON_S):
        for number in range(20):
            at.registry.add_model(f"library/m{number}:latest", {MODEL_TYPE: noise(100, number)})
        async with asyncio.TaskGroup() as group:
            asks = [
                group.create_task(at.json("/api/pull", {"model": f"m{number}", "stream": False}))
                for number in range(20)
            ]
        assert sorted(one.result()[0] for one in asks) == [200] * 5 + [429] * 15


async def test_a_node_that_is_drained_stays_so(tmp_path: Path) -> None:
    """Its next heartbeat does not undo it."""
    async with fronted(tmp_path, backend="none", hub__enabled=True) as at:
        await beat(at, "n", models=["m"], api=True)
        assert (await asked(at.client, "/mirror/v1/turns/drain", {"backend": "n"}))[0] == 200
        await beat(at, "n", models=["m"], api=True)
        assert [one.draining for one in at.mirror.parts.pool] == [True]


async def test_nobody_has_more_turns_by_more_addresses_of_one_network(tmp_path: Path) -> None:
    """A /64 of IPv6 is one customer's."""
    async with fronted(tmp_path, security__trusted_proxies=["127.0.0.1"]) as at:
        for number in range(3):
            await asked(at.client, "/api/generate", GENERATE, X_Forwarded_For=f"2001:db8::{number + 1}")
        assert [one.user for one in at.mirror.parts.turns.users()] == ["2001:db8::/64"]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/jobs", "/api/v1/prompt"])
async def test_json_of_millions_of_parts_is_not_read(path: str, tmp_path: Path) -> None:
    """Reading it would take seconds in which nobody else is served; one long text is no such thing."""
    async with fronted(tmp_path, hub__enabled=True) as at:
        many_parts = b'{"model":"m","prompt":"x","options":{"a":[' + b"1," * (MOST_PARTS + 1) + b"1]}}"
        assert (await at.json(path, many_parts))[0] == 413
        assert at.ollama.asked == []
        long = b'{"model":"m","prompt":"' + b"x" * 2 * MOST_PARTS + b'","stream":false}'
        assert (await at.json("/api/generate", long))[0] == 200
        assert at.mirror.parts.turns.waiting == 0


async def test_who_waits_for_a_model_that_has_gone_is_told_so_after_a_while() -> None:
    """Not after the whole of the time that a queue may take; an Ollama that is started anew is back before."""
    clock, pool = Clock(), Pool()
    async with AsyncExitStack() as stack:
        for id_ in ("first", "second"):
            backend = Backend("http://127.0.0.1:9", 1.0)
            stack.push_async_callback(backend.close)
            pool.put(Member(id=id_, backend=backend, online=True, models=frozenset({"m"} if id_ == "first" else ())))
        first = next(iter(pool))
        turns: Turns = Turns(FairQueue(Rules()), pool, timeout_s=1000, clock=clock)
        async with turns.turn("ann", Wanted(model="m"), 1.0):
            async with asyncio.TaskGroup() as group:
                waits = group.create_task(_refused(turns, "bob"))
                await asyncio.sleep(0)
                for seconds, online in ((0, False), (14, False), (1, True), (10, False), (14, False)):
                    clock.at += seconds
                    first.online = online
                    turns.look()
                    await asyncio.sleep(0)
                    assert not waits.done()
                clock.at += 2
                turns.look()
            assert waits.result()
            assert turns.waiting == 0


async def test_a_node_that_comes_back_has_the_work_that_it_had(tmp_path: Path) -> None:
    """To forget it and have it register again gives it no slots anew."""
    async with fronted(tmp_path, backend="none", hub__enabled=True) as at:
        pool = at.mirror.parts.pool
        await beat(at, "n", models=["m"], api=True)
        (before,) = pool
        before.active = 1
        for _ in range(2):
            assert (await at.client.get("/nodes/n", method="DELETE")).status == 204
            await beat(at, "n", models=["m"], api=True)
            assert [one.active for one in pool] == [1]
        before.active = 0
        assert (await at.client.get("/nodes/n", method="DELETE")).status == 204
        await beat(at, "n", models=["m"], api=True)
        assert [one is before for one in pool] == [False]


async def test_nodes_show_no_model_that_is_hidden(tmp_path: Path) -> None:
    """What the rules refuse by its name is told nowhere else either."""
    async with fronted(tmp_path, backend="none", hub__enabled=True, security__rules=[{"deny": ["secret"]}]) as at:
        await beat(at, "n", models=["m", "secret"], loaded=["secret"], api=True)
        for path in ("/nodes", "/nodes/n"):
            said = json.loads((await at.client.get(path)).body)
            node = said[0] if isinstance(said, list) else said
            assert (node["models"], node["loaded"]) == (["m"], []), path


def test_many_who_wait_for_pulls_look_less_often_each() -> None:
    """Four hundred of them would else keep a core busy for nothing."""
    assert pause_s(1) == pause_s(20) == 0.1
    assert all(followers / pause_s(followers) <= 200.001 for followers in (1, 20, 21, 400, 10_000))


async def _refused(turns: Turns, user: str) -> bool:
    with pytest.raises(NowhereToRun):
        async with turns.turn(user, Wanted(model="m"), 1.0):
            pass
    return True
