"""``kill -9`` of the real program while clients pull and read, and while it drops what is over its limit."""

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from mirror.store import Layout
from mirror.values import ByteRange, Digest, Manifest
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.process import mirror, serving
from tests.stored import problems
from tests.support import Machine, add_blob, blob_path, machine

SIZE, MODELS = 400_000, 8
ENV = {
    "OLLAMA_MIRROR_CACHE_MAX_SIZE": "2MB",
    "OLLAMA_MIRROR_CACHE_LOW_WATER": "60%",
    "OLLAMA_MIRROR_CACHE_CLEANUP_INTERVAL": "50ms",
    "OLLAMA_MIRROR_CACHE_SCRUB_INTERVAL": "1ms",
    "OLLAMA_MIRROR_CACHE_SCRUB_RATE": "100MB/s",
    "OLLAMA_MIRROR_LOGGING_ACCESS": "false",
}


async def test_nothing_wrong_is_served_or_left_by_kills_under_load(tmp_path: Path) -> None:
    """Power fails when everybody works, not when nobody does."""
    await kill_and_look(tmp_path, rounds=4, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3000)
async def test_nothing_wrong_is_served_or_left_by_two_hundred_kills_under_load(tmp_path: Path) -> None:
    """The moments between two steps are short, so many kills are needed to meet them all."""
    await kill_and_look(tmp_path, rounds=200, seed=int(time.time()))


async def kill_and_look(folder: Path, *, rounds: int, seed: int) -> None:
    """Kill server after server on one store; between them look at the tree, and during them at every answer."""
    dice, seen = random.Random(seed), Counter[str]()
    layout = Layout(folder / "store", folder / "store.state")
    async with running_fake_registry() as fake:
        for number in range(MODELS):
            add_blob(fake, SIZE, f"library/m{number}:latest", seed=number)
        for number in range(rounds):
            where = f"seed {seed}, round {number}"
            async with serving(folder / "store", fake.url, env=ENV) as (url, process), machine(url) as client:
                assert problems(layout) == [], f"{where}: after the start that mends"
                await load_until_killed(fake, client, process, dice, seen)
        verified = await mirror("verify", "--store", str(layout.root))
        assert verified.code == 0, verified.out
    assert seen["HIT"], f"nothing was tested: {seen}"
    assert seen["MISS"] + seen["FILL"], f"nothing was tested: {seen}"


async def load_until_killed(
    fake: FakeRegistry, client: Machine, process: asyncio.subprocess.Process, dice: random.Random, seen: Counter[str]
) -> None:
    """Pull and read from several clients, and kill the server in the middle of it."""
    async with asyncio.TaskGroup() as group:
        pulling = [group.create_task(pull_on(client, random.Random(dice.random()), seen)) for _ in range(6)]
        await asyncio.sleep(dice.uniform(0.05, 0.8))  # the moment is the test
        process.kill()
        await process.wait()
        for task in pulling:
            task.cancel()
    assert fake.log


async def pull_on(client: Machine, dice: random.Random, seen: Counter[str]) -> None:
    """Pull models without end: whole blobs and ranges; whatever comes to its end must be right."""
    while True:
        name = f"m{dice.randrange(MODELS)}"
        with suppress(aiohttp.ClientError, ConnectionError):
            answer = await client.get(f"/v2/library/{name}/manifests/latest")
            if answer.broken or answer.status != 200:
                continue
            for blob in Manifest.parse(answer.body).blobs:
                whole = await client.get(blob_path(blob.digest, f"library/{name}"))
                if whole.status == 200 and not whole.broken:
                    assert Digest.of(whole.body) == blob.digest, "a wrong byte completed"
                    seen[whole.cache or "?"] += 1
                    start = dice.randrange(blob.size)
                    part = await client.get(blob_path(blob.digest, f"library/{name}"), ByteRange(start, blob.size))
                    if part.status == 206 and not part.broken:
                        assert part.body == whole.body[start:], "a wrong byte completed"
        await asyncio.sleep(0)
