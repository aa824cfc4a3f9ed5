"""How fairly turns are given: many users with a few requests each, beside one who throws in all of theirs at once."""

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import aiohttp

from mirror.demo.answering import MODEL, Answering, answering
from mirror.dispatch import jain
from mirror.errors import MirrorError

GREEDY = "greedy"
_START_S = 30.0
_TAKEN_IN_S = 0.5
"""The equal users begin once the greedy one's requests wait: hundreds of connections take a while."""
_TIMEOUT = aiohttp.ClientTimeout(total=None)


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a mirror: ``each`` requests one after the other of every user, ``greedy`` at once of one."""

    users: int
    each: int
    greedy: int
    model: str = MODEL

    @property
    def names(self) -> list[str]:
        """The equal users."""
        return [f"user-{number:03d}" for number in range(1, self.users + 1)]


@dataclass(slots=True)
class Seen:
    """What clients saw: how long each request took, by user, and statuses that were not 200."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    shares: Mapping[str, int] = field(default_factory=dict)

    def took(self, user: str, seconds: float) -> None:
        """A request was answered."""
        self.waits.setdefault(user, []).append(seconds)

    def done(self, user: str) -> int:
        """How many of a user's were answered."""
        return len(self.waits.get(user, ()))


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of a run. Times in seconds; ``alone_s`` is the mean of the equal users without the greedy one.

    ``index`` is Jain's over what each user had had when the first equal user was done. ``lost`` and ``doubled`` are
    prompts that the Ollama never saw, or saw twice; None where it cannot be asked.
    """

    load: Load
    waits: Mapping[str, tuple[int, float, float]]
    index: float
    mean_s: float
    alone_s: float
    longest_s: float
    greedy_mean_s: float
    refused: int
    lost: int | None
    doubled: int | None


async def measured(load: Load, url: str, prompts: Callable[[], Counter[str]] | None = None) -> Report:
    """Put a load on the mirror at ``url``: first without the greedy user, then with."""
    alone = await _run(Load(load.users, load.each, 0, load.model), url, "alone")
    seen = await _run(load, url, "beside")
    times = [one for name in load.names for one in seen.waits.get(name, ())]
    counted = prompts() if prompts is not None else None
    wanted = [f"beside {user} {number}" for user, count in _counts(load).items() for number in range(count)]
    return Report(
        load=load,
        waits={user: (len(all_), fmean(all_), max(all_)) for user, all_ in sorted(seen.waits.items())},
        index=jain([seen.shares.get(user, 0) for user in _counts(load)]),
        mean_s=fmean(times) if times else 0.0,
        alone_s=fmean([one for all_ in alone.waits.values() for one in all_]) if alone.waits else 0.0,
        longest_s=max(times, default=0.0),
        greedy_mean_s=fmean(seen.waits.get(GREEDY) or [0.0]),
        refused=sum(seen.refused.values()) + sum(alone.refused.values()),
        lost=sum(counted[one] == 0 for one in wanted) if counted is not None else None,
        doubled=sum(counted[one] > 1 for one in wanted) if counted is not None else None,
    )


def _counts(load: Load) -> dict[str, int]:
    return {**({GREEDY: load.greedy} if load.greedy else {}), **dict.fromkeys(load.names, load.each)}


async def _run(load: Load, url: str, tag: str) -> Seen:
    seen, before = Seen(), 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_TIMEOUT) as session:

        async def ask(user: str, number: int) -> None:
            begun = time.perf_counter()
            body = {"model": load.model, "prompt": f"{tag} {user} {number}", "stream": False}
            async with session.post(f"{url}/api/generate", json=body, headers={"X-User-ID": user}) as answer:
                await answer.read()
            if answer.status != 200:
                seen.refused[str(answer.status)] += 1
                return
            seen.took(user, time.perf_counter() - begun)
            if user != GREEDY and seen.done(user) == load.each and not seen.shares:
                seen.shares = {name: seen.done(name) - (before if name == GREEDY else 0) for name in _counts(load)}

        async def in_sequence(user: str) -> None:
            for number in range(load.each):
                await ask(user, number)

        async with asyncio.TaskGroup() as group:
            for number in range(load.greedy):
                group.create_task(ask(GREEDY, number))
            if load.greedy:
                await asyncio.sleep(_TAKEN_IN_S)
            before = seen.done(GREEDY)
            for name in load.names:
                group.create_task(in_sequence(name))
    return seen


@asynccontextmanager
async def made_up(service_s: float, fairness: str) -> AsyncIterator[tuple[str, Answering]]:
    """Run a mirror, as a program of its own, in front of an Ollama that takes ``service_s`` for each request.

    Yields the mirror's URL. Raises MirrorError where it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="mirror-stress-") as folder:
        async with answering(service_s) as ollama:
            said = {
                "OLLAMA_BACKEND": ollama.url,
                "OLLAMA_MIRROR_OFFLINE": "true",
                "OLLAMA_MIRROR_DISPATCH_FAIRNESS": fairness,
                "OLLAMA_MIRROR_LOGGING_LEVEL": "WARNING",
                "OLLAMA_MIRROR_LOGGING_ACCESS": "false",
            }
            command = [sys.executable, "-m", "mirror", "serve", "--host", "127.0.0.1", "--port", "0"]
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--store", str(Path(folder) / "store")),
                stdout=asyncio.subprocess.PIPE,
                env={**_environment(), **said},
                cwd=folder,
            )
            try:
                yield await _url(process), ollama
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.communicate()


def _environment() -> dict[str, str]:
    """Return what this process has in its environment, but for settings of a mirror."""
    return {key: value for key, value in os.environ.items() if not key.startswith("OLLAMA_")}


async def _url(process: asyncio.subprocess.Process) -> str:
    if process.stdout is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                first = (await process.stdout.readline()).decode().split()
            if first:
                return first[-1]
    raise MirrorError("the mirror that is to be measured did not start")
