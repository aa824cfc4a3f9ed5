"""Where prompt jobs run, and what they hold up: models of the store, nodes that take jobs only, the end of a mirror."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mirror.demo.model import MODEL_TYPE
from mirror.values import ModelName
from tests.batches import chat, using
from tests.behind import asked, closed
from tests.fakes.ollama import running_fake_ollama
from tests.fakes.registry import running_fake_registry
from tests.hub import serving_app
from tests.process import serving
from tests.prompts import Prompting, prompting
from tests.support import SOON_S, machine, noise

WORDS = "one two three four"


@pytest.mark.parametrize("run", ["now", "idle"])
async def test_a_model_that_only_the_store_has_is_delivered_and_run(run: str, tmp_path: Path) -> None:
    """For a prompt, and for a line of a batch; where the settings say so nothing is delivered."""
    for missing in (True, False):
        folder = tmp_path / str(missing)
        async with prompting(folder, **closed(), dispatch__deliver_missing=missing) as (at, me), asyncio.timeout(30):
            for name in ("far", "farther"):
                at.registry.add_model(f"library/{name}:latest", {MODEL_TYPE: noise(10_000)})
                await at.mirror.parts.puller.pull(ModelName.parse(name), lambda _: None)
            said = await me.until(await me.submit(model="far", run=run), "completed" if missing else "failed")
            assert (said.get("result") == WORDS) is missing
            batching = using(at.mirror.url)
            async with batching.client:
                line = chat("a", body={**chat("a")["body"], "model": "farther"})
                begun = await batching.begin(line, metadata={"run": run})
                done = await batching.until(begun.id, "completed")
                assert (done.output_file_id is not None) is missing


async def test_a_node_that_takes_jobs_only_runs_plain_prompts(tmp_path: Path) -> None:
    """By /execute, as an older agent has it; what that cannot say it does not get."""
    got: list[dict[str, Any]] = []

    async def execute(request: web.Request) -> web.StreamResponse:
        got.append(await request.json())
        lines = [{"response": "from "}, {"response": "afar", "done": True, "eval_count": 2}]
        return web.Response(body=b"".join(json.dumps(one).encode() + b"\n" for one in lines))

    app = web.Application()
    app.add_routes([web.post("/execute", execute)])
    said = {"backend": "none", "hub__enabled": True, "prompts__tries": 1}
    async with serving_app(app) as url, prompting(tmp_path, **said) as (at, me), asyncio.timeout(SOON_S):
        beat = {"node_id": "old", "port": int(url.rpartition(":")[2]), "ipv4": "127.0.0.1", "models": ["m"]}
        assert (await asked(at.client, "/nodes/heartbeat", beat))[0] == 200
        id_ = await me.submit("plain", options={"seed": 1})
        assert (await me.until(id_, "completed"))["result"] == "from afar"
        assert got == [{"model": "m", "prompt": "plain", "options": {"seed": 1}, "stream": True}]
        for more in ({"system": "s"}, {"images": ["aGk="]}):
            await me.until(await me.submit("more", **more), "failed")
        batching = using(at.mirror.url)
        async with batching.client:
            begun = await batching.begin(chat("a"), metadata={"run": "now"})
            done = await batching.until(begun.id, "completed")
            (line,) = await batching.lines(done.error_file_id)
            assert line["response"]["status_code"] in (404, 503)
        assert len(got) == 1


@pytest.mark.parametrize("large", [False, True])
async def test_who_reads_events_does_not_hold_up_the_end(tmp_path: Path, *, large: bool) -> None:
    """Whether they wait for the next piece, or do not even take the last."""
    async with running_fake_registry() as registry, running_fake_ollama(tmp_path / "ollama") as ollama:
        ollama.folder.add("m")
        if large:
            ollama.words = ("x" * 100_000,) * 150
        ollama.pace.hold()
        env = {"OLLAMA_URL": ollama.url, "OLLAMA_MODEL": "m", "OLLAMA_MIRROR_SERVER_SHUTDOWN": "60s"}
        async with serving(tmp_path / "store", registry.url, env=env) as (url, process), machine(url) as client:
            me = Prompting(client)
            id_ = await me.submit()
            async with me.reading(id_) as events, asyncio.timeout(SOON_S):
                ollama.pace.release(1000 if large else 1)
                if large:
                    await me.until(id_, "completed")
                else:
                    await anext(events)
                process.terminate()
                assert await process.wait() == 0
