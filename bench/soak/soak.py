"""One soak: everything begun, everybody at work, life after life, and the end."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.soak.asking import MODEL, Asking
from bench.soak.driver import Driver
from bench.soak.faults import Damage, Faults
from bench.soak.leaving import Leaving
from bench.soak.lives import Lives
from bench.soak.minding import Minding
from bench.soak.models import write_catalog
from bench.soak.pulling import Pulling
from bench.soak.report import Report
from bench.soak.servers import Mirror, Ollama, Program, node_of
from tests.fakes.ollama_folder import ModelsFolder

Step = Callable[[random.Random], Awaitable[None]]
Say = Callable[[str], None]

_LONG = 1 / 3
"""The share of the time that one life has at the end, so that growth would show."""
_TELL_S = 5.0
_IDLE_S = 22.0
"""After so long idle connections have been closed on every side, and what is still open is held."""


@dataclass(frozen=True)
class Plan:
    """How long a soak is: lives of about ``life_s`` in ``short_s``, and then one of ``long_s``.

    ``rests`` is how often everybody rests in the long one, ``short_rests`` in each of the others; two show leaks.
    """

    short_s: float
    life_s: float
    long_s: float
    rests: int
    settle_s: float
    short_rests: int = 2

    @classmethod
    def of(cls, minutes: float) -> "Plan":
        """Divide the time; a short run has short lives, so that there are several in any case."""
        seconds = minutes * 60
        long_s = seconds * _LONG
        life_s = min(50.0, max(5.0, seconds / 12))
        return cls(seconds - long_s, life_s, long_s, max(2, min(6, int(long_s / 40))), min(_IDLE_S, life_s / 2))


@asynccontextmanager
async def _programs(base: Path, seed: int) -> AsyncIterator[Driver]:
    """Everything but the mirror, begun."""
    catalog = await asyncio.to_thread(write_catalog, base / "models")
    async with AsyncExitStack() as stack:
        command = [sys.executable, "-m", "bench.soak.upstream", str(catalog.folder)]
        upstream = Program(command, base / "upstream.log")
        ollamas = Ollama.at(base, "ollama"), Ollama.at(base, "node")
        for name in ("ollama", "node"):
            ModelsFolder(base / name).add(MODEL)
        for program in (upstream, *ollamas):
            stack.push_async_callback(program.stop)
            await program.start()
        mirror = Mirror(base, upstream.url, ollamas[0].url)
        agent = node_of(mirror, ollamas[1])
        for program in (agent, mirror):
            stack.push_async_callback(program.stop)
        await agent.start()
        yield Driver(mirror, upstream, *ollamas, catalog, random.Random(seed))


class Soak:
    """Has everybody work for so many minutes; what comes of it depends on the seed and on the moment."""

    def __init__(self, driver: Driver, plan: Plan, seed: int, say: Say) -> None:
        self._at = driver
        self._plan = plan
        self._seed = seed
        self._say = say
        self._damage = Damage(driver)
        self._lives = Lives(driver, self._damage, say, settle_s=plan.settle_s)

    async def run(self) -> Report:
        """Run to the end, whatever is not kept on the way."""
        begun = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._on_and_on(*one)) for one in self._everybody()]
                tasks.append(group.create_task(self._tell(begun)))
                await self._all_lives(begun)
                for task in tasks:
                    task.cancel()
        except* RuntimeError as errors:
            for error in errors.exceptions:
                self._at.record.tell(str(error))
        self._damage.heal()
        return Report(self._at.record, time.monotonic() - begun, self._seed, self._damage.done, self._damage.found)

    async def _all_lives(self, begun: float) -> None:
        dice, plan = random.Random(self._at.dice.random()), self._plan
        while time.monotonic() - begun < plan.short_s:
            ending = dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            await self._lives.life(plan.life_s * dice.uniform(0.5, 1.5), plan.short_rests, ending, dice)
        await self._lives.life(plan.long_s, plan.rests, signal.SIGTERM, dice)

    def _everybody(self) -> list[tuple[Step, float, bool]]:
        """Who works: what each does, how long the pauses are, and whether it rests with the others."""
        pulling, asking, leaving = Pulling(self._at), Asking(self._at), Leaving(self._at)
        minding, faults = Minding(self._at), Faults(self._at)
        return [
            *[(pulling.pull, 0.5, True)] * 4,
            *[(pulling.look, 0.2, True)] * 2,
            *[(asking.ask, 0.2, True)] * 6,
            *[(asking.pull, 2.0, True)] * 2,
            (asking.delete, 4.0, True),
            *[(leaving.prompt, 0.5, True)] * 2,
            (leaving.batch, 2.0, True),
            (minding.command, 0.5, True),
            (minding.look, 0.2, True),
            *[(minding.watch, 0.5, True)] * 2,
            (minding.beat, 0.5, False),
            (minding.reload, 8.0, True),
            (faults.above, 0.1, True),
            (faults.behind, 0.1, True),
            (faults.beside, 6.0, True),
            (self._damage.harm, 3.0, True),
        ]

    async def _on_and_on(self, step: Step, pause_s: float, rests: bool) -> None:
        """Do it again and again until cancelled."""
        dice = random.Random(self._at.dice.random())
        while True:
            if rests:
                await self._at.gate.entered()
            with self._at.gate.busy(step.__qualname__) if rests else nullcontext():
                await step(dice)
            await asyncio.sleep(dice.uniform(0.5, 1.5) * pause_s)

    async def _tell(self, begun: float) -> None:
        """Say every few seconds how it stands."""
        while True:
            await asyncio.sleep(_TELL_S)
            record = self._at.record
            wrong = ", ".join(self._at.timeline.now_wrong()) or "nothing wrong"
            self._say(
                f"{time.monotonic() - begun:6.0f} s  {record.requests.total():,} requests, "
                f"{record.bytes_read / 1e9:.2f} GB, {record.errors.total():,} errors foreseen, "
                f"{record.unforeseen.total()} not, {record.wrong} wrong  [{wrong}]"
            )


async def soak(base: Path, plan: Plan, seed: int, say: Say) -> Report:
    """Run one soak below ``base``, which is on a disk."""
    async with _programs(base, seed) as driver:
        return await Soak(driver, plan, seed, say).run()
