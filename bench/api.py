"""The API side: what the mirror adds to a request, how many it turns over, and what one that waits costs."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import psutil

from bench.servers import free_port, running

WAITING = 5000
_BODY = {"model": "m", "prompt": "hi"}
_LUA = """
wrk.method = "POST"
wrk.body = '{"model":"m","prompt":"hi","stream":false}'
wrk.headers["Content-Type"] = "application/json"
"""


def measure(base: Path, rounds: int) -> str:
    """Return the table of medians."""
    figures: dict[str, list[float]] = defaultdict(list)
    script = base / "post.lua"
    script.write_text(_LUA)
    with ExitStack() as stack:
        direct, _ = stack.enter_context(_server([sys.executable, "-m", "bench.answers"], base))
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            with _mirror(direct, base / f"store{number}", slots=64) as (url, process):
                for who, where in (("direct", direct), ("mirror", url)):
                    figures[f"{who} rate"].append(_rate(where, script))
                    first, late = asyncio.run(_latency(where))
                    figures[f"{who} first"] += first
                    figures[f"{who} late"] += late
                figures["cpu"].append(_cpu_of_a_token(url, process))
            with _mirror(direct, base / f"queue{number}", slots=1) as (url, process):
                asyncio.run(_waiting(direct, url, process, figures))
    return _table(figures)


def _rate(url: str, script: Path) -> float:
    command = ["wrk", "-t1", "-c64", "-d4s", "-s", str(script), f"{url}/api/generate"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(float(line.split()[1]) for line in said.splitlines() if "Requests/sec" in line)


async def _latency(url: str, count: int = 60) -> tuple[list[float], list[float]]:
    """Return the times to the first word, and how late each word was, one request after the other."""
    first, late = [], []
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            begun, seen = time.monotonic(), False
            async with session.post(f"{url}/api/generate", json={**_BODY, "stream": True}) as answer:
                async for line in answer.content:
                    now, said = time.monotonic(), json.loads(line)
                    if not seen:
                        first.append(now - begun)
                        seen = True
                    if not said["done"]:
                        late.append(now - float(said["response"]))
    return first, late


def _cpu_of_a_token(url: str, process: psutil.Process) -> float:
    before = sum(process.cpu_times()[:2])
    _, late = asyncio.run(_latency(url, 40))
    return (sum(process.cpu_times()[:2]) - before) / len(late)


async def _waiting(direct: str, url: str, process: psutil.Process, figures: dict[str, list[float]]) -> None:
    """Let many wait, see what memory that takes, and how fast they are gone."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        await (await session.post(f"{url}/api/generate", json={**_BODY, "stream": False})).read()
        await session.post(f"{direct}/hold")
        before = process.memory_info().rss

        async def ask(number: int) -> None:
            headers = {"X-User-ID": f"user-{number % 50}"}
            async with session.post(f"{url}/api/generate", json={**_BODY, "stream": False}, headers=headers) as answer:
                await answer.read()
                if answer.status != 200:
                    sys.exit(f"a request that waited was answered {answer.status}")

        async with asyncio.TaskGroup() as group:
            for number in range(WAITING):
                group.create_task(ask(number))
            while (await _depth(session, url)) < WAITING - 1:  # noqa: ASYNC110  # another process's queue
                await asyncio.sleep(0.2)
            figures["kb"].append((process.memory_info().rss - before) / WAITING / 1000)
            begun = time.monotonic()
            await session.delete(f"{direct}/hold")
        figures["drained"].append(WAITING / (time.monotonic() - begun))


async def _depth(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(f"{url}/mirror/v1/turns") as answer:
        return int((await answer.json())["waiting"])


@contextmanager
def _server(command: list[str], base: Path, **environ: str) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    environment = {**os.environ, **environ}
    with running([*command, str(port)], port, env=environment, stdout=subprocess.DEVNULL) as process:
        yield f"http://127.0.0.1:{port}", process


def _mirror(backend: str, store: Path, slots: int) -> "contextmanager[tuple[str, psutil.Process]]":  # type: ignore[type-arg]
    command = [sys.executable, "-m", "mirror", "serve", "--host", "127.0.0.1", "--store", str(store), "--port"]
    said = {
        "OLLAMA_BACKEND": backend,
        "OLLAMA_MIRROR_OFFLINE": "true",
        "OLLAMA_MIRROR_DISPATCH_SLOTS": str(slots),
        "OLLAMA_MIRROR_DISPATCH_TIMEOUT": "10m",
        "OLLAMA_MIRROR_LISTEN_MAX_CONNECTIONS": "20000",
        "OLLAMA_MIRROR_LOGGING_LEVEL": "WARNING",
        "OLLAMA_MIRROR_LOGGING_ACCESS": "false",
    }
    return _server(command, store, **said)  # type: ignore[return-value]


def _table(figures: dict[str, list[float]]) -> str:
    def median(key: str) -> float:
        return statistics.median(figures[key])

    def worst(key: str) -> float:
        return statistics.quantiles(figures[key], n=100)[98]

    def added(key: str) -> str:
        middle = 1000 * (median(f"mirror {key}") - median(f"direct {key}"))
        return f"{middle:.2f} ms (p99 {1000 * (worst(f'mirror {key}') - worst(f'direct {key}')):.2f})"

    ratio = statistics.median(
        ours / theirs for ours, theirs in zip(figures["mirror rate"], figures["direct rate"], strict=True)
    )
    rates = f"{median('mirror rate'):.0f} / {median('direct rate'):.0f} = {ratio:.2f}"
    rows = [
        ("short requests per second, 64 at once, ours / direct", rates),
        ("added to the first word of a stream, idle", added("first")),
        ("added to each word, 1 ms apart", added("late")),
        ("processor time of a word", f"{1e6 * median('cpu'):.0f} us"),
        (f"memory of one that waits, of {WAITING}", f"{median('kb'):.1f} KB"),
        ("requests drained per second, one slot", f"{median('drained'):.0f}"),
    ]
    return "\n".join(["| what | median |", "|---|---|", *(f"| {what} | {said} |" for what, said in rows)])
