"""A node's agent: jobs and Ollama's API handed on, heartbeats through restarts, models that it has to have."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.errors import SettingsError
from mirror.hub import InvalidHeartbeat, Node
from mirror.hub.agent import running_agent
from mirror.hub.machine import Machine as ThisMachine
from mirror.hub.node_face import RELAYED
from mirror.hub.required import Required
from mirror.hub.settings import NodeSettings
from mirror.ollama import Backend, Ollama
from mirror.values import ModelName
from tests.behind import NOBODY, asked, lines_of
from tests.fakes.ollama import FakeOllama, running_fake_ollama
from tests.fakes.ollama_trouble import Trouble
from tests.fakes.registry import running_fake_registry
from tests.hub import Life, all_of, hub
from tests.net import answering, free_port
from tests.process import mirror
from tests.support import SOON_S, Machine, add_blob, eventually, machine, mirrored

NO_GPU = "/nonexistent/nvidia-smi"
ASK = {"model": "m", "prompt": "Why?", "options": {"seed": 1}}


@dataclass(frozen=True)
class Noded:
    """A node: a client of its agent, and its Ollama."""

    client: Machine
    ollama: FakeOllama


@asynccontextmanager
async def noded(folder: Path, hub_url: str = NOBODY, **said: Any) -> AsyncIterator[Noded]:
    """An agent in front of a fake Ollama that has the model ``m``; its hub is nobody, if none is given."""
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(running_fake_ollama(folder / "ollama"))
        fake.folder.add("m")
        usual: dict[str, Any] = {"hub": hub_url, "node_id": "gpu1", "host": "127.0.0.1", "port": 0, "poll_s": 0.02}
        settings = NodeSettings(**{**usual, "ollama": fake.url, **said})
        agent = await stack.enter_async_context(running_agent(settings, ThisMachine(NO_GPU)))
        client = await stack.enter_async_context(machine(agent.url))
        yield Noded(client, fake)


def address(client: Machine) -> str:
    """Where a client's server answers."""
    return str(client.url("")).rstrip("/")


async def known(one: Life, **wanted: object) -> Node:
    """Wait until the hub knows the node ``gpu1`` with these words about it; return it."""
    found: list[Node] = []

    async def holds() -> bool:
        node = one.nodes.get("gpu1")
        if node is not None and all(getattr(node.said, key) == value for key, value in wanted.items()):
            found.append(node)
        return bool(found)

    await eventually(holds)
    return found[0]


async def test_a_job_is_run_and_streamed_as_it_comes(tmp_path: Path) -> None:
    """By default line by line; the first is here before the second is said; who leaves ends it at the Ollama."""
    async with noded(tmp_path) as node, asyncio.timeout(SOON_S):
        node.ollama.pace.hold()
        node.ollama.pace.release()
        async with node.client.session.post(node.client.url("/execute"), json=ASK) as answer:
            assert (await anext(lines_of(answer)))["response"] == "one"
            assert node.ollama.pace.said == 1
        asks = node.ollama.troubles
        await asks.wait_for(lambda: any(one.left for one in asks.of("/api/generate")))
        node.ollama.pace.release(10)
        status, said = await asked(node.client, "/execute", {**ASK, "stream": False, "else": 1})
        assert (status, said["response"]) == (200, "one two three four")
        assert json.loads(asks.of("/api/generate")[1].body) == {**ASK, "stream": False}


async def test_an_answer_that_is_cut_has_no_clean_end(tmp_path: Path) -> None:
    """The hub would hand half an answer on as a whole one."""
    async with noded(tmp_path) as node, asyncio.timeout(SOON_S):
        node.ollama.troubles.add(Trouble.CUT, "/api/generate", after=2)
        async with node.client.session.post(node.client.url("/execute"), json=ASK) as answer:
            said, broken = await all_of(answer)
        assert ([line["response"] for line in said], broken) == (["one", " two"], True)


async def test_errors_of_a_job_have_a_detail_and_the_ollama_s_status(tmp_path: Path) -> None:
    """By which the hub tells a wrong job from a node in trouble."""
    async with noded(tmp_path) as node:
        assert await asked(node.client, "/execute", {**ASK, "model": "nope"}) == (
            404,
            {"detail": "model 'nope' not found"},
        )
        node.ollama.troubles.add(Trouble.STATUS, "/api/generate", status=500)
        assert await asked(node.client, "/execute", ASK) == (500, {"detail": "the runner has stopped"})
        for wrong in (b"", b"{}", b'{"model": "m"}', b'{"model": "m", "prompt": 5}'):
            status, said = await asked(node.client, "/execute", wrong)
            assert (status, list(said)) == (400, ["detail"])
        await node.ollama.down()
        status, said = await asked(node.client, "/execute", ASK)
        assert (status, "does not answer" in said["detail"]) == (503, True)


async def test_the_api_is_handed_on_and_nothing_else(tmp_path: Path) -> None:
    """By method and path as they are; another path is never asked for at the Ollama."""
    async with noded(tmp_path) as node, asyncio.timeout(SOON_S):
        for method, path in RELAYED:
            await asked(node.client, f"{path}?x=%2F", {"model": "m"}, method=method)
            assert (method, path) in {(one.method, one.path) for one in node.ollama.asked}
        before = len([one for one in node.ollama.asked if one.path not in ("/api/tags", "/api/ps", "/api/version")])
        for method, path in (
            ("GET", "/"),
            ("GET", "/debug/pprof/"),
            ("POST", "/api/push"),
            ("POST", "/api/create"),
            ("GET", "/api/blobs/sha256:0"),
            ("GET", "/api/../debug/pprof/"),
            ("POST", "/api/tags/"),
        ):
            status, said = await asked(node.client, path, b"", method=method)
            assert (status, said) == (404, {"detail": "Not Found"})
        assert await asked(node.client, "/api/generate", b"", method="GET") == (405, {"detail": "Method Not Allowed"})
        asks = [one for one in node.ollama.asked if one.path not in ("/api/tags", "/api/ps", "/api/version")]
        assert len(asks) == before


async def test_the_api_streams_both_ways(tmp_path: Path) -> None:
    """A large prompt goes in as it comes, words come out one by one, and what is cut has no clean end."""
    async with noded(tmp_path) as node, asyncio.timeout(SOON_S):
        large = {"model": "m", "messages": [{"role": "user", "content": "x" * 300_000}]}
        status, said = await asked(node.client, "/api/chat", large)
        assert (status, said[-1]["done"]) == (200, True)
        assert json.loads(node.ollama.troubles.of("/api/chat")[0].body) == large
        node.ollama.pace.hold()
        node.ollama.pace.release()
        body = {"model": "m", "messages": [], "stream": True}
        async with node.client.session.post(node.client.url("/v1/chat/completions"), json=body) as answer:
            assert b"one" in await answer.content.readline()
            assert answer.headers["X-Accel-Buffering"] == "no"
        node.ollama.pace.release(10)
        node.ollama.troubles.add(Trouble.CUT, "/api/chat", after=1)
        async with node.client.session.post(node.client.url("/api/chat"), json=large) as answer:
            assert (await all_of(answer))[1]
        await node.ollama.down()
        status, said = await asked(node.client, "/v1/messages", {"model": "m"})
        assert (status, said["type"]) == (502, "error")


async def test_with_a_token_strangers_get_nothing_but_health(tmp_path: Path) -> None:
    """And pages of browsers get nothing with it either: they have no business at a node."""
    async with noded(tmp_path, token="secret") as node:
        assert (await node.client.get("/healthz")).status == 200
        for path in ("/execute", "/api/generate", "/api/delete", "/nothing"):
            for shown in ("", "Bearer wrong", "Basic secret"):
                status, said = await asked(node.client, path, ASK, Authorization=shown)
                assert (status, list(said)) == (401, ["detail"])
        assert not node.ollama.troubles.of("/api/generate")
        assert (await asked(node.client, "/execute", ASK, Authorization="Bearer secret"))[0] == 200
        assert "Authorization" not in node.ollama.troubles.of("/api/generate")[0].headers
        page = "http://evil.example"
        assert (await asked(node.client, "/execute", ASK, Authorization="Bearer secret", Origin=page))[0] == 403


async def test_a_node_whose_ollama_is_itself_says_so(tmp_path: Path) -> None:
    """It would ask itself until something breaks."""
    port = free_port()
    async with noded(tmp_path, port=port, ollama=f"http://127.0.0.1:{port}") as node, asyncio.timeout(SOON_S):
        status, said = await asked(node.client, "/execute", ASK)
        assert (status, "OLLAMA_BASE_URL" in said["detail"]) == (508, True)


async def test_the_hub_knows_what_the_node_is(tmp_path: Path) -> None:
    """Addresses, models, load, who it is; and at once when its models change."""
    async with hub(tmp_path) as (client, one), noded(tmp_path, address(client), slots=2) as node:
        found = await known(one, models=("m:latest",))
        assert (found.said.ipv4, found.url) == ("127.0.0.1", address(node.client))
        assert (found.said.api, found.said.slots, found.said.metadata["ollama"]) == (True, 2, "0.33.0")
        assert found.said.memory is not None
        assert 0 < found.said.memory <= 1
        assert found.said.cpu is not None
        node.ollama.folder.add("n")
        await known(one, models=("n:latest", "m:latest"))
        beats = len(one.told.ids)
        asks = node.ollama.troubles
        seen = len(asks.of("/api/tags"))
        await asks.wait_for(lambda: len(asks.of("/api/tags")) > seen + 5)
        assert len(one.told.ids) == beats, "nothing is told before it is time, if nothing changes"


async def test_an_ollama_that_dies_and_comes_back(tmp_path: Path) -> None:
    """The hub is told at once, both times; or jobs would be sent to a machine that cannot run them."""
    async with hub(tmp_path) as (client, one), noded(tmp_path, address(client)) as node:
        await known(one, models=("m:latest",))
        await node.ollama.down()
        assert (await known(one, models=())).said.metadata["ollama"] is None
        await node.ollama.up()
        await known(one, models=("m:latest",))


async def test_a_hub_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """With no memory of the node at all: it is told within a second or two, and needs nobody's help."""
    port = free_port()
    async with noded(tmp_path, f"http://127.0.0.1:{port}", interval_s=0.05) as node:
        for life in ("first", "second"):
            (tmp_path / life).mkdir()
            async with hub(tmp_path / life, port=port) as (_, one):
                await known(one, models=("m:latest",))
        assert node.ollama.asked


async def test_a_hub_that_asks_for_a_token(tmp_path: Path) -> None:
    """Gets it, and takes the node."""
    async with (
        hub(tmp_path, token="secret") as (client, one),
        noded(tmp_path, address(client), token="secret"),
    ):
        await known(one, models=("m:latest",))


@pytest.mark.parametrize("body", [b'{"models": "m"}', b'{"models": {"name": "m"}}', b"[]", b"<html>"])
async def test_an_ollama_that_lies_has_no_models(tmp_path: Path, body: bytes) -> None:
    """Whatever answers there: the node lives, and gets no jobs."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with (
        answering(answer) as (url, heads),
        hub(tmp_path) as (client, one),
        noded(tmp_path, address(client), ollama=url),
    ):
        assert (await known(one, models=())).said.loaded == ()
        assert heads


async def test_the_log_has_a_line_for_each_change_and_not_for_each_try(tmp_path: Path) -> None:
    """A hub that is away for a night must not fill the disk of every node."""
    refused = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    port = free_port()
    with capture_logs() as lines:
        async with noded(tmp_path, f"http://127.0.0.1:{port}", interval_s=0.01):
            async with answering(refused, port=port) as (_, heads):

                async def tried() -> bool:
                    return len(heads) > 4

                await eventually(tried)
            (tmp_path / "hub").mkdir()
            async with hub(tmp_path / "hub", port=port) as (_, one):
                await known(one)
                beats = len(one.told.ids)

                async def again() -> bool:
                    return len(one.told.ids) > beats + 3

                await eventually(again)
                told = [line["event"] for line in lines if line["event"].startswith(("hub", "ollama"))]
    assert told == ["ollama answers", "hub does not answer as it should; tried again", "hub answers"]


@pytest.mark.parametrize("name", ["m", "team/m:7b"])
async def test_required_models_come_through_the_hub(tmp_path: Path, name: str) -> None:
    """Pulled from the mirror by plain HTTP, under their plain name in the end, and no other name is left."""
    model = ModelName.parse(name)
    async with running_fake_registry() as registry, mirrored(tmp_path, registry) as (running, _):
        add_blob(
            registry, 100_000, name=model.repository if model.tag == "latest" else f"{model.repository}:{model.tag}"
        )
        async with noded(tmp_path, running.url, required=(ModelName.parse("m"), model)) as node:

            async def there() -> bool:
                return {one.short for one in node.ollama.folder.names()} == {"m:latest", model.short}

            await eventually(there)
            pulls = [json.loads(one.body) for one in node.ollama.troubles.of("/api/pull")]
            authority = running.url.removeprefix("http://")
            expected = {"model": f"{authority}/{model.repository}:{model.tag}", "insecure": True}
            assert pulls == ([] if name == "m" else [expected])


async def test_a_required_model_that_fails_is_tried_again(tmp_path: Path) -> None:
    """The mirror may be away, or its upstream: the node serves with what it has meanwhile."""
    async with (
        running_fake_registry() as registry,
        mirrored(tmp_path, registry, cache__negative_ttl=0) as (running, _),
        running_fake_ollama(tmp_path / "ollama") as fake,
    ):
        backend = Backend(fake.url, 2.0)
        try:
            required = Required((ModelName.parse("m"),), Ollama(backend), running.url)
            assert not await required.look(), "no upstream has it"
            add_blob(registry, 1000)
            fake.troubles.add(Trouble.STATUS, "/api/copy")
            assert not await required.look()
            fake.troubles.add(Trouble.STATUS, "/api/delete")
            assert await required.look()
            assert len(fake.folder.names()) == 2, "the long name could not be deleted"
            assert await required.look()
            assert [one.short for one in fake.folder.names()] == ["m:latest"]
            await fake.down()
            assert not await required.look()
        finally:
            await backend.close()


async def test_what_cannot_be_a_node_is_said_at_once(tmp_path: Path) -> None:
    """And not by a hub, again and again, in the log."""
    async with noded(tmp_path) as node:
        port = int(address(node.client).rpartition(":")[2])
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with noded(tmp_path / "other", port=port):
                pass
    with pytest.raises(InvalidHeartbeat):
        async with noded(tmp_path / "third", node_id="no such/name"):
            pass


@asynccontextmanager
async def program(env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """``mirror node`` with these variables."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mirror", "node", "--host", "127.0.0.1"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        env={**os.environ, **env},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_program_with_the_variables_of_older_nodes(tmp_path: Path) -> None:
    """As their compose file sets them; killed and started anew it is known again at once; SIGTERM ends it in order."""
    async with running_fake_ollama(tmp_path / "ollama") as fake, hub(tmp_path) as (client, one):
        fake.folder.add("m")
        env = {
            "SERVER_URL": address(client),
            "NODE_ID": "gpu1",
            "NODE_PORT": "0",
            "OLLAMA_BASE_URL": fake.url,
            "HEARTBEAT_INTERVAL": "30",
            "LOG_LEVEL": "INFO",
        }
        async with program(env):
            await known(one, models=("m:latest",))
        one.nodes.remove("gpu1")
        async with program(env) as process:
            assert process.stdout is not None
            said = (await process.stdout.readline()).decode()
            url = said.split()[-1]
            assert (await known(one, models=("m:latest",))).url == url
            async with machine(url) as node:
                assert (await asked(node, "/execute", {**ASK, "stream": False}))[0] == 200
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(SOON_S):
                assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--hub"),
        (("--hub", "hub:11434"), "must be an absolute http or https URL"),
        (("--hub", "http://hub", "--interval", "0.1s"), "less than a second"),
        (("--hub", "http://hub", "--require", "hf.co/a/b"), "registry of its own"),
        (("--hub", "http://hub", "--require", "a//b"), "invalid model name"),
        (("--hub", "http://hub", "--id", "a b"), "accepted is a node_id"),
    ],
)
async def test_wrong_use_is_said(arguments: tuple[str, ...], said: str) -> None:
    """With exit code 2, before anything is asked."""
    ended = await mirror("node", *arguments)
    assert (ended.code, said in ended.err) == (2, True), ended.err
