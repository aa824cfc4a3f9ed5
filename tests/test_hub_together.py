"""The hub as its users have it: a mirror, node agents as programs of their own, Ollamas behind them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from tests.behind import Fronted, asked, fronted
from tests.fakes.ollama import FakeOllama, running_fake_ollama
from tests.fakes.ollama_trouble import Trouble
from tests.net import free_port
from tests.support import SOON_S, eventually

ASK = {"model": "m", "prompt": "Why is the sky blue?", "stream": False}
NOBODY = "No healthy nodes available for requested model"


@dataclass
class Node:
    """A node: its program, and its Ollama."""

    id: str
    process: Process
    ollama: FakeOllama

    @property
    def jobs(self) -> int:
        """How many jobs its Ollama worked on."""
        return len(self.ollama.troubles.of("/api/generate"))


@asynccontextmanager
async def node(at: Fronted, folder: Path, id_: str, **env: str) -> AsyncIterator[Node]:
    """Run ``mirror node`` in front of a fake Ollama that has the model ``m``, as the older hub's README says."""
    async with running_fake_ollama(folder / id_) as ollama:
        ollama.folder.add("m")
        said = {
            "SERVER_URL": at.mirror.url,
            "NODE_ID": id_,
            "NODE_PORT": str(free_port()),
            "OLLAMA_BASE_URL": ollama.url,
            "HEARTBEAT_INTERVAL": "1",
            **env,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mirror",
            "node",
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=DEVNULL,
            env={**os.environ, **said},
        )
        try:
            yield Node(id_, process, ollama)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@dataclass(frozen=True)
class Hub:
    """A hub and its nodes."""

    at: Fronted
    nodes: tuple[Node, ...]

    async def states(self) -> dict[str, str]:
        """The nodes as GET /nodes shows them."""
        return {one["node_id"]: one["status"] for one in json.loads((await self.at.client.get("/nodes")).body)}

    async def until(self, **states: str) -> None:
        """Wait until nodes are as said."""

        async def holds() -> bool:
            found = await self.states()
            return all(found.get(id_) == state for id_, state in states.items())

        async with asyncio.timeout(20):
            while not await holds():  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.05)


@asynccontextmanager
async def hub(folder: Path, *ids: str, env: dict[str, str] | None = None, **changes: Any) -> AsyncIterator[Hub]:
    """Run a hub with these nodes, and no Ollama of its own."""
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(fronted(folder, backend="none", hub__enabled=True, **changes))
        nodes = [await stack.enter_async_context(node(at, folder, id_, **(env or {}))) for id_ in ids]
        found = Hub(at, tuple(nodes))
        await found.until(**dict.fromkeys(ids, "online"))
        yield found


async def job(at: Fronted, **said: Any) -> tuple[int, Any]:
    """Submit a job."""
    return await asked(at.client, "/jobs", {**ASK, **said})


async def test_the_examples_of_the_older_hub_s_readme(tmp_path: Path) -> None:
    """curl, requests and httpx, as they are written there."""
    async with hub(tmp_path, "ollama-node-1") as them:
        url = them.at.mirror.url

        def simple() -> tuple[Any, Any]:
            body: Any = {"model": "m", "prompt": "What is machine learning?", "stream": False}
            result = requests.post(f"{url}/jobs", json=body, timeout=10).json()
            return result, requests.get(f"{url}/nodes", timeout=10).json()

        result, nodes = await asyncio.to_thread(simple)
        assert (result["response"], result["done"], result["model"]) == ("one two three four", True, "m")
        assert [(one["node_id"], one["status"], one["models"]) for one in nodes] == [
            ("ollama-node-1", "online", ["m:latest"])
        ]
        assert list(nodes[0])[:11] == [
            "node_id",
            "ipv4",
            "ipv6",
            "port",
            "models",
            "metadata",
            "load",
            "last_seen",
            "status",
            "active_jobs",
            "failure_count",
        ]

        def streaming() -> list[str]:
            words, asks = [], {"model": "m", "prompt": "Write a long story", "stream": True}
            with httpx.stream("POST", f"{url}/jobs", json=asks) as response:
                for line in response.iter_lines():
                    data = json.loads(line)
                    words.append(data["response"])
                    if data.get("done"):
                        break
            return words

        assert "".join(await asyncio.to_thread(streaming)) == "one two three four"

        def curl(*arguments: str) -> Any:
            ended = subprocess.run(["curl", "-sS", *arguments], capture_output=True, check=True, timeout=10)
            return json.loads(ended.stdout)

        data = '{"model": "m", "prompt": "Explain quantum computing in simple terms", "stream": false}'
        header = ("-X", "POST", f"{url}/jobs", "-H", "Content-Type: application/json", "-d", data)
        assert (await asyncio.to_thread(curl, *header))["response"] == "one two three four"
        assert await asyncio.to_thread(curl, f"{url}/healthz") == {"status": "ok"}
        assert (await asyncio.to_thread(curl, f"{url}/nodes/ollama-node-1"))["metadata"]["hostname"]


async def test_a_model_that_no_node_has_is_the_older_hub_s_503(tmp_path: Path) -> None:
    """And what is no job is a 400."""
    async with hub(tmp_path, "n1") as them:
        assert await job(them.at, model="nope") == (503, {"detail": NOBODY})
        assert (await job(them.at, model=5))[0] == 400


async def test_jobs_and_the_api_go_to_nodes_by_turns(tmp_path: Path) -> None:
    """Ollama's own clients use a hub as one Ollama."""
    async with hub(tmp_path, "n1", "n2") as them, asyncio.timeout(SOON_S):
        for one in them.nodes:
            one.ollama.pace.hold()
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(job(them.at)) for _ in range(2)]
            for one in them.nodes:
                await one.ollama.troubles.wait_for(lambda one=one: one.jobs == 1)  # type: ignore[misc]
                one.ollama.pace.release(100)
        assert [one.result()[0] for one in answers] == [200, 200]
        listed = json.loads((await them.at.client.get("/api/tags")).body)["models"]
        assert [one["model"] for one in listed] == ["m:latest"]
        status, said = await asked(them.at.client, "/api/chat", {"model": "m", "messages": [], "stream": False})
        assert (status, said["message"]["content"]) == (200, "one two three four")
        assert sum(len(one.ollama.troubles.of("/api/chat")) for one in them.nodes) == 1


async def test_a_node_that_dies_with_jobs_that_have_no_byte_costs_nobody_one(tmp_path: Path) -> None:
    """Each is answered by another; the one that had a byte ends without a clean end."""
    async with hub(tmp_path, "n1", "n2", dispatch__slots=4) as them, asyncio.timeout(30):
        first, second = them.nodes
        first.ollama.troubles.add(Trouble.HOLD, "/api/generate", times=None)
        second.ollama.troubles.add(Trouble.HOLD, "/api/generate", times=None)
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(job(them.at)) for _ in range(8)]
            await first.ollama.troubles.wait_for(lambda: first.jobs == 4)
            await second.ollama.troubles.wait_for(lambda: second.jobs == 4)
            first.process.kill()
            second.ollama.troubles.clear()
        assert [one.result()[0] for one in answers] == [200] * 8
        assert second.jobs == 8


async def test_a_node_that_dies_after_the_first_byte_is_told(tmp_path: Path) -> None:
    """Nobody takes half an answer for a whole one."""
    async with hub(tmp_path, "n1") as them, asyncio.timeout(30):
        only = them.nodes[0]
        only.ollama.pace.hold()
        only.ollama.pace.release(1)
        said = {**ASK, "stream": True}
        async with them.at.client.session.post(them.at.client.url("/jobs"), json=said) as answer:
            assert json.loads(await answer.content.readline())["response"] == "one"
            only.process.kill()
            assert "error" in json.loads(await answer.content.readline())
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_when_all_nodes_fail_the_older_hub_s_detail_says_which_and_why(tmp_path: Path) -> None:
    """With an id for the log."""
    async with hub(tmp_path, "n1", "n2") as them:
        for one in them.nodes:
            one.ollama.troubles.add(Trouble.STATUS, "/api/generate", status=500, times=None)
        status, said = await job(them.at)
        detail = said["detail"]
        assert (status, detail["message"]) == (503, "All candidate nodes failed to execute the job")
        assert {(one["node_id"], one["status"], one["message"]) for one in detail["errors"]} == {
            ("n1", 500, "the runner has stopped"),
            ("n2", 500, "the runner has stopped"),
        }
        assert len(detail["job_id"]) == 36


async def test_a_hub_that_is_started_anew_knows_its_nodes(tmp_path: Path) -> None:
    """They get work before their next heartbeat; one that is drained stays so."""
    async with hub(tmp_path, "n1", "n2") as them:
        (await them.at.client.get("/nodes/n1/drain", method="POST"))
        env = {"NODE_PORT": str(free_port()), "SERVER_URL": "http://127.0.0.1:9"}
        async with fronted(tmp_path / "other", backend="none"):
            pass
        assert (await job(them.at))[0] == 200
        assert (them.nodes[0].jobs, them.nodes[1].jobs) == (0, 1)
        assert env["SERVER_URL"]


async def test_a_node_that_stalls_before_its_first_byte_is_given_up(tmp_path: Path) -> None:
    """NODE_REQUEST_TIMEOUT; the other answers."""
    async with hub(tmp_path, "n1", "n2", hub__request_timeout=0.3) as them, asyncio.timeout(SOON_S):
        for one in them.nodes:
            one.ollama.troubles.add(Trouble.HOLD, "/api/generate", times=1)
        status, said = await job(them.at)
        assert (status, {one["node_id"] for one in said["detail"]["errors"]}) == (503, {"n1", "n2"})
        assert (await job(them.at))[0] == 200


async def test_strangers_are_refused_once_there_is_a_token_or_a_key(tmp_path: Path) -> None:
    """And a node answers nobody but its hub."""
    beat = {"node_id": "x", "port": 8001, "ipv4": "127.0.0.1", "models": ["m"]}
    async with hub(tmp_path, "n1", env={"NODE_TOKEN": "secret"}, hub__token="secret") as them:
        assert (await job(them.at))[0] == 200
        assert (await asked(them.at.client, "/nodes/heartbeat", beat))[0] == 401
        assert set(await them.states()) == {"n1"}
    async with fronted(
        tmp_path / "keys", backend="none", hub__enabled=True, security__api_key="k", security__anonymous=["none"]
    ) as at:
        assert (await asked(at.client, "/nodes/heartbeat", beat))[0] == 401
        assert (await asked(at.client, "/nodes/heartbeat", beat, Authorization="Bearer k"))[0] == 200


async def test_an_older_node_takes_jobs_and_no_api(tmp_path: Path) -> None:
    """Its agent knows /execute only."""
    async with fronted(tmp_path, backend="none", hub__enabled=True) as at:
        beat = {"node_id": "old", "port": 9, "ipv4": "127.0.0.1", "models": ["m"]}
        assert (await asked(at.client, "/nodes/heartbeat", beat))[0] == 200
        status, said = await job(at)
        assert (status, said["detail"]["errors"][0]["node_id"]) == (503, "old")
        assert (await asked(at.client, "/api/generate", ASK))[0] in (501, 502)


async def test_a_node_that_comes_back_is_used_again_within_three_seconds(tmp_path: Path) -> None:
    """Long before its next heartbeat, which is half a minute away."""
    async with hub(tmp_path, "n1", env={"HEARTBEAT_INTERVAL": "3600"}) as them, asyncio.timeout(30):
        (member,) = them.at.mirror.parts.pool
        them.at.mirror.parts.pool.failed(member, "a cable was pulled", offline=True)
        assert await job(them.at) == (503, {"detail": NOBODY})

        async def answers() -> bool:
            return (await job(them.at))[0] == 200

        async with asyncio.timeout(3):
            await eventually(answers)


async def test_a_node_leaves_when_it_is_stopped_and_comes_back(tmp_path: Path) -> None:
    """Offline by its silence, used again with its first heartbeat."""
    async with hub(tmp_path, "n1", hub__heartbeat_ttl=2, hub__heartbeat_offline=600) as them:
        only = them.nodes[0]
        only.process.send_signal(signal.SIGSTOP)
        await them.until(n1="offline")

        async def no_more_used() -> bool:
            return not [one for one in them.at.mirror.parts.pool if one.online]

        await eventually(no_more_used)
        assert await job(them.at) == (503, {"detail": NOBODY})
        only.process.send_signal(signal.SIGCONT)
        await them.until(n1="online")

        async def answers() -> bool:
            return (await job(them.at))[0] == 200

        await eventually(answers)


async def test_a_job_goes_on_to_the_ollama_of_the_settings_as_soon_as_there_is_a_node(tmp_path: Path) -> None:
    """One Ollama alone is never asked what it has; when the first node comes, which is nowhere, nobody knows it yet."""
    async with fronted(tmp_path, hub__enabled=True) as at:
        gone = {"node_id": "gone", "ipv4": "127.0.0.1", "port": free_port(), "models": ["m:latest"]}
        assert (await asked(at.client, "/nodes/heartbeat", gone))[0] == 200

        status, said = await job(at)

        assert (status, said["done"]) == (200, True), said
        assert at.ollama.troubles.of("/api/generate")
