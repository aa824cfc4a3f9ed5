"""The lives of the mirror: begun, at rest, under load, ended in one way or another, and looked at when it is dead."""

import asyncio
import json
import random
import signal
import time
from collections.abc import Callable

import aiohttp
import psutil  # type: ignore[import-untyped]  # the stubs are not installed

from bench.soak.causes import Cause, Trouble
from bench.soak.driver import LONGEST_S, Driver
from bench.soak.faults import Damage
from bench.soak.record import Figures, Life
from bench.soak.servers import checked

_AT_WORK = ("mirror_fill_inflight", "mirror_fill_readers", "mirror_queue_depth", "mirror_node_active", "mirror_jobs")
_PULLING = ('mirror_pull_jobs{state="downloading"}', 'mirror_pull_jobs{state="delivering"}')
_PATIENCE_S = 8.0
_HELPERS_END_S = 5.0
_IDLE_WITHIN_S = 120.0
_SETTLED_WITHIN_S = 75.0
"""A repair that the scrub begins while all rest opens connections again, which are kept for a while."""
_CLEAN_CODES = {signal.SIGTERM: 0, signal.SIGKILL: -signal.SIGKILL}


class Lives:
    """Starts and ends the mirror; ``say`` tells a person what happens."""

    def __init__(self, driver: Driver, damage: Damage, say: Callable[[str], None], *, settle_s: float) -> None:
        self._at = driver
        self._damage = damage
        self._say = say
        self._settle_s = settle_s
        self._away: Trouble | None = None

    async def life(self, seconds: float, rests: int, ending: signal.Signals, dice: random.Random) -> None:
        """Let the mirror live for so long, with so many rests between, and end it while it works."""
        life, begun = Life(len(self._at.record.lives) + 1), time.monotonic()
        self._at.record.lives.append(life)
        await self._begin()
        warm_s = min(8.0, seconds / 4)
        await self._work(warm_s)
        for number in range(rests):
            if number:
                await self._work((seconds - warm_s) / (rests - 1))
            await self._rest(life)
        await self._work(dice.uniform(0.2, 2.0))  # the end comes while everybody works
        life.seconds = time.monotonic() - begun
        await self._end(life, ending)

    async def _begin(self) -> None:
        self._at.mirror.write()
        begun = time.monotonic()
        await self._at.mirror.start()
        self._at.up = True
        if self._away is not None:
            self._away.ended = time.monotonic()
        self._at.gate.open()
        self._say(f"life {len(self._at.record.lives)}: serves after {time.monotonic() - begun:.1f} s")

    async def _work(self, seconds: float) -> None:
        """Let everybody work; a mirror that ends meanwhile has crashed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._at.mirror.ended is not None:
                self._at.record.promise_broken("the mirror crashed", f"exit code {self._at.mirror.ended}")
                raise RuntimeError(f"the mirror ended by itself; see {self._at.mirror.log}")
            await asyncio.sleep(0.1)

    async def _rest(self, life: Life) -> None:
        """Have everybody rest, and look at the mirror."""
        begun = time.monotonic()
        self._at.gate.close()
        if not await self._at.gate.resting(_PATIENCE_S):
            self._say(f"waiting for {+self._at.gate.busy_with}")
        if not await self._at.gate.resting(LONGEST_S + 10):
            self._at.record.promise_broken("a request never ended", str(+self._at.gate.busy_with))
        workers_s = time.monotonic() - begun
        await self._idle()
        idle_s = time.monotonic() - begun
        figures = await self._figures(life.rests[0] if life.rests else None)
        life.rests.append(figures)
        self._say(
            f"at rest: {figures.descriptors} descriptors, {figures.tasks} tasks, {figures.threads} threads, "
            f"{figures.memory / 1e6:.0f} MB (workers {workers_s:.1f} s, idle {idle_s:.1f} s)"
        )
        first = life.rests[0]
        if any(figures.more_than(first)):
            self._at.record.tell(f"life {life.number}: more descriptors than at first: {figures.kinds - first.kinds}")
        self._at.gate.open()

    async def _idle(self) -> None:
        until = time.monotonic() + _IDLE_WITHIN_S
        busy: dict[str, float] = {}
        while time.monotonic() < until:
            said = await metrics(self._at.url)
            busy = {key: value for key, value in said.items() if value and _is_work(key)}
            if not busy:
                return
            await asyncio.sleep(0.2)
        self._at.record.promise_broken("the mirror never came to rest", str(busy))

    async def _figures(self, before: Figures | None) -> Figures:
        """Return the least of some looks: idle connections close one by one, and what tidies up comes and goes."""
        best = await self._look()
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < _SETTLED_WITHIN_S:
            await asyncio.sleep(0.25)
            now = await self._look()
            if (now.descriptors, now.tasks) <= (best.descriptors, best.tasks):
                best = now
            if passed > self._settle_s and (before is None or not any(best.more_than(before))):
                break
        return best

    async def _look(self) -> Figures:
        said = await metrics(self._at.url)
        return self._at.mirror.at_rest(int(said["mirror_tasks"]))

    async def _end(self, life: Life, ending: signal.Signals) -> None:
        life.ending = ending.name
        self._at.record.endings[ending.name] += 1
        self._away = self._at.timeline.begin(Cause.RESTART, f"restart by {ending.name}", time.monotonic())
        self._at.up = False
        helpers = self._at.mirror.helpers()
        self._at.mirror.send(ending)
        try:
            code = await self._at.mirror.gone()
        except TimeoutError:
            self._at.record.promise_broken("the mirror did not stop", ending.name)
            code = _CLEAN_CODES[ending]
        if code != _CLEAN_CODES[ending]:
            self._at.record.promise_broken("the mirror ended badly", f"{ending.name} gave {code}")
        left = await asyncio.to_thread(_left_over, helpers)
        if left:
            self._at.record.promise_broken("a process was left over", f"{ending.name}: {left}")
        for line in self._at.mirror.errors():
            self._at.record.promise_broken("errors in the log", line[:2000])
        await self._examine(ending)

    async def _examine(self, ending: signal.Signals) -> None:
        """Look at the store that is left, as the next start finds it."""
        self._damage.heal()
        self._at.mirror.write()  # the last word may have been settings that cannot be
        for command in (("verify",), ("doctor", "--json")):
            code, said = await checked(self._at.mirror, *command)
            if code and not _only_the_others(command, said):
                self._at.record.promise_broken(f"an unclean store after {ending.name}", f"{command[0]}: {said[-1500:]}")


def _left_over(helpers: list[psutil.Process]) -> list[str]:
    """Return those that are still there some seconds later."""
    _, alive = psutil.wait_procs(helpers, timeout=_HELPERS_END_S)
    return [str(one) for one in alive]


async def metrics(url: str) -> dict[str, float]:
    """Return the figures of /metrics by name and labels."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        text = (await answer.read()).decode()
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            key, _, value = line.rpartition(" ")
            found[key] = float(value)
    return found


def _is_work(key: str) -> bool:
    return key in _PULLING or key.partition("{")[0] in _AT_WORK


def _only_the_others(command: tuple[str, ...], said: str) -> bool:
    """Whether all that is wrong is the upstream and the Ollamas, which have faults of their own."""
    if command[0] != "doctor":
        return False
    try:
        found = json.loads(said)
    except ValueError:
        return False
    return all(one["matter"] in ("upstream", "dns", "clock", "ollama") for one in found if one["verdict"] == "problem")
