"""``kill -9`` of the real program in the middle of a night, and in the middle of a delivery."""

import asyncio
import json
from pathlib import Path

from mirror.demo.model import MODEL_TYPE
from mirror.values import Digest
from tests.behind import asked
from tests.fakes.ollama import running_fake_ollama
from tests.fakes.ollama_trouble import Trouble
from tests.fakes.registry import running_fake_registry
from tests.process import serving
from tests.support import SOON_S, Machine, eventually, machine, noise

SIZE = 8_000_000
ENV = {
    "OLLAMA_MIRROR_PULLS_WINDOWS": "00:00-24:00",
    "OLLAMA_MIRROR_PULLS_DISK_THRESHOLD": "100%",
    "OLLAMA_MIRROR_UPSTREAM_CONNECTIONS": "1",
}


async def counted(client: Machine, state: str) -> int:
    """How many jobs are in a state."""
    counts: dict[str, int] = json.loads((await client.get("/mirror/v1/queue")).body)["counts"]
    return counts[state]


async def test_a_night_goes_on_after_a_kill_from_the_bytes_that_are_there(tmp_path: Path) -> None:
    """What was recorded is not fetched again; at the end the Ollama has the model under its plain name."""
    weights = noise(SIZE)
    digest = Digest.of(weights)
    async with running_fake_registry() as registry, running_fake_ollama(tmp_path / "ollama") as ollama:
        env = {**ENV, "OLLAMA_BACKEND": ollama.url}
        registry.add_model("library/far:latest", {MODEL_TYPE: weights})
        registry.hold(digest, SIZE // 2)
        store = tmp_path / "store"
        async with serving(store, registry.url, env=env) as (url, process), machine(url) as client:
            async with asyncio.timeout(SOON_S):
                assert (await asked(client, "/api/pull", {"model": "far", "stream": False}))[1]["status"] == "queued"

                async def half_is_here() -> bool:
                    (job,) = json.loads((await client.get("/mirror/v1/queue")).body)["jobs"]
                    return bool((job["done"] or 0) >= SIZE // 2)

                await eventually(half_is_here)
            await client.get("/mirror/v1/queue/pause", method="POST")
            process.terminate()
            await process.wait()
        async with serving(store, registry.url, env=env) as (url, process), machine(url) as client:
            async with asyncio.timeout(SOON_S):
                assert await counted(client, "pending") == 1
                registry.log.clear()
                await client.get("/mirror/v1/queue/resume", method="POST")

                async def asks_for_the_rest() -> bool:
                    return bool(registry.asked("blob"))

                await eventually(asks_for_the_rest)
            process.kill()
            await process.wait()
        registry.release(digest)
        async with serving(store, registry.url, env=env) as (url, _), machine(url) as client:

            async def done() -> bool:
                return await counted(client, "completed") == 1

            async with asyncio.timeout(SOON_S):
                await eventually(done)
            assert [one.short for one in ollama.folder.names()] == ["far:latest"]
        begun_at = [
            int(one.range.removeprefix("bytes=").partition("-")[0]) for one in registry.asked("blob") if one.range
        ]
        assert min(at for at in begun_at if at) >= SIZE // 2


async def test_a_delivery_goes_on_after_a_kill_and_leaves_no_name(tmp_path: Path) -> None:
    """The name it was pulled by is deleted by the next life of the mirror."""
    async with running_fake_registry() as registry, running_fake_ollama(tmp_path / "ollama") as ollama:
        env = {**ENV, "OLLAMA_BACKEND": ollama.url}
        registry.add_model("library/far:latest", {MODEL_TYPE: noise(300_000)})
        ollama.troubles.add(Trouble.HOLD, "/api/copy")
        store = tmp_path / "store"
        async with serving(store, registry.url, env=env) as (url, process), machine(url) as client:
            async with asyncio.timeout(SOON_S):
                await asked(client, "/api/pull", {"model": "far", "stream": False})
                await ollama.troubles.wait_for(lambda: bool(ollama.troubles.of("/api/copy")))
            process.kill()
            await process.wait()
            assert [one.short for one in ollama.folder.names()] != ["far:latest"]
        ollama.troubles.clear()
        registry.log.clear()
        async with serving(store, registry.url, env=env) as (url, _), machine(url) as client:

            async def done() -> bool:
                return await counted(client, "completed") == 1

            async with asyncio.timeout(SOON_S):
                await eventually(done)
        assert [one.short for one in ollama.folder.names()] == ["far:latest"]
        assert not registry.asked("blob")
