"""A store of 2,000 models and 100,000 small blobs: how long a start and a plan take, and how much memory.

``python -m bench.growth open|plan FOLDER`` measures once, in a process of its own, and prints it as JSON.
"""

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from bench.servers import free_port, peak_of
from mirror.app.parts import opened_parts
from mirror.config import Settings
from mirror.db import Ledger, open_database
from mirror.events import Events
from mirror.store import Layout, Store
from mirror.values import Digest, ModelName
from mirror.values.manifest import DOCKER_MANIFEST

MODELS, BLOBS, BLOB_BYTES = 2000, 50, 100
MOST = MODELS * BLOBS * BLOB_BYTES * 2 // 3
_TICK_S = 0.001
_LONGEST_S = 120
_AIMS = {
    "Store.open, s": 2.0,
    "mirror serve until /livez, s": 2.0,
    "gc plan, s": 1.0,
    "loop held up by the plan, s": 0.05,
    "peak memory of a start, MB": 200.0,
    "peak memory of a plan, MB": 200.0,
}


def write_store(base: Path) -> None:
    """Write every file straight to its place: nothing is recovered from here, so nothing need be durable."""
    layout = Layout(base / "store", base / "store.state")
    layout.make()
    for number in range(MODELS):
        entries = [_write_blob(layout, number, part) for part in range(BLOBS)]
        said = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": entries[0], "layers": entries[1:]}
        path = layout.manifest(_name(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(said))
    asyncio.run(_write_ledger(layout.state / "mirror.db"))


def _write_blob(layout: Layout, number: int, part: int) -> dict[str, object]:
    content = f"{number} {part}".encode().ljust(BLOB_BYTES)
    digest = Digest.of(content)
    layout.blob(digest).write_bytes(content)
    return {
        "mediaType": "application/vnd.docker.container.image.v1+json"
        if part == 0
        else "application/vnd.ollama.image.tensor",
        "digest": str(digest),
        "size": len(content),
    }


def _name(number: int) -> ModelName:
    return ModelName.parse(f"space{number % 10}/model{number // 4}:tag{number % 4}")


async def _write_ledger(file: Path) -> None:
    engine = await open_database(None, file)
    clock = iter(datetime.now(UTC) + timedelta(seconds=one) for one in range(MODELS + 2))
    ledger = Ledger(engine, lambda: next(clock))
    for number in range(MODELS):
        ledger.used(_name(number))
    await ledger.flush()
    await engine.dispose()


async def opening(base: Path) -> dict[str, float]:
    begun = time.monotonic()
    store = await Store.open(base / "store", base / "store.state", Events(), holder="bench")
    took = time.monotonic() - begun
    assert len(store.complete) == MODELS
    store.close()
    return {"Store.open, s": took}


async def planning(base: Path) -> dict[str, float]:
    settings = Settings.model_validate({"cache": {"directory": base / "store", "max_size": MOST}})
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            begun = time.monotonic()
            await asyncio.sleep(_TICK_S)
            longest = max(longest, time.monotonic() - begun - _TICK_S)

    async with opened_parts(settings, holder="bench") as parts, asyncio.TaskGroup() as group:
        gc.freeze()  # as mirror serve does
        ticking = group.create_task(tick())
        await asyncio.sleep(0.01)
        begun = time.monotonic()
        made = await parts.keeper.plan()
        took = time.monotonic() - begun
        await asyncio.sleep(0.01)
        ticking.cancel()
    assert len(made.rows) > MODELS // 3
    return {
        "gc plan, s": took,
        "loop held up by the plan, s": longest,
        "peak memory of a plan, MB": peak_of(psutil.Process()) / 1e6,
    }


def serving(base: Path) -> dict[str, float]:
    """Time the program from its exec until it answers."""
    port = free_port()
    command = [sys.executable, "-m", "mirror", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--store", str(base / "store"), "--log-level", "WARNING"]
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not _alive(f"http://127.0.0.1:{port}/livez"):
            if process.poll() is not None or time.monotonic() > begun + _LONGEST_S:
                process.kill()
                sys.exit("mirror serve did not start")
            time.sleep(0.01)
        took = time.monotonic() - begun
        peak = peak_of(psutil.Process(process.pid))
        process.terminate()
    return {"mirror serve until /livez, s": took, "peak memory of a start, MB": peak / 1e6}


def _alive(url: str) -> bool:
    with suppress(OSError):
        return bool(urllib.request.urlopen(url, timeout=5).status == 200)
    return False


def measure(base: Path, rounds: int) -> str:
    """Make the store, measure it some times and return the table."""
    print(f"making a store of {MODELS} models and {MODELS * BLOBS} blobs", flush=True)
    write_store(base)
    figures: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        for found in (_apart("open", base), serving(base), _apart("plan", base)):
            for what, figure in found.items():
                figures[what].append(figure)
                print(f"  {what:44s} {figure:9.3f}", flush=True)
    lines = ["| what | median | spread | aim |", "|---|---|---|---|"]
    for what, aim in _AIMS.items():
        found = figures[what]
        spread = f"{min(found):.3g} to {max(found):.3g}"
        lines.append(f"| {what} | {statistics.median(found):.3g} | {spread} | below {aim:g} |")
    return "\n".join(lines)


def _apart(what: str, base: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.growth", what, str(base)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=_LONGEST_S)
    return {str(key): float(value) for key, value in json.loads(done.stdout).items()}


if __name__ == "__main__":
    ways = {"open": opening, "plan": planning}
    print(json.dumps(asyncio.run(ways[sys.argv[1]](Path(sys.argv[2])))))
