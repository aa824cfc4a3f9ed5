"""Prompt jobs that run while nobody else wants an Ollama, or in a window."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from mirror.dispatch import Attempts, IdleTurns
from mirror.prompts import Lives, Prompts, Running, State, Worker, parse_prompt
from mirror.pulls import Clock, WallClock
from mirror.values.window import Schedule, Span, Window, parse_window
from tests.behind import Fronted, closed, fronted
from tests.night import NightClock
from tests.prompts import Prompting, prompting
from tests.support import SOON_S, eventually

NIGHT = parse_window("22:00-06:00")


class Once:
    """A window that is open once, for a moment from now on."""

    def __init__(self) -> None:
        self.span = Span(datetime.now(UTC), datetime.now(UTC) + timedelta(milliseconds=400))

    def spans(self, after: datetime, zone: ZoneInfo) -> Iterator[Span]:
        """Yield that."""
        yield self.span


def asked_for(at: Fronted) -> list[str]:
    """The prompts that the Ollama was sent, in order."""
    return [json.loads(one.body)["prompt"] for one in at.ollama.troubles.of("/api/generate")]


async def test_an_idle_prompt_is_begun_when_nobody_else_waits(tmp_path: Path) -> None:
    """Whatever came later, and whoever left it; and at once where there is nothing else to do."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        await me.until(await me.submit("alone", run="idle"), "completed")
        at.ollama.pace.hold()
        first = await me.submit("first")
        await me.until(first, "processing")
        idle = await me.submit("idle", run="idle", priority=1000)
        others = [await Prompting(at.client, {"X_User_ID": name}).submit(name) for name in ("ann", "bob", "eve")]
        assert await me.get(f"prompt/{idle}/status") == (200, {"id": idle, "status": "queued", "run": "idle"})
        at.ollama.pace.release(1000)
        for one in (first, *others, idle):
            await me.until(one, "completed")
        assert sorted(asked_for(at)[2:5]) == ["ann", "bob", "eve"]
        assert asked_for(at)[5:] == ["idle"]


async def test_idle_prompts_leave_room_and_users_take_turns_among_them(tmp_path: Path) -> None:
    """One at a time, of two slots; the one who left many waits after each for those who left few."""
    async with prompting(tmp_path, dispatch__slots=2) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        ann, bob = (Prompting(at.client, {"X_User_ID": name}) for name in ("ann", "bob"))
        idle = [await ann.submit("ann 0", run="idle")]
        await ann.until(idle[0], "processing")
        idle += [await ann.submit(f"ann {number}", run="idle") for number in (1, 2)]
        idle.append(await bob.submit("bob", run="idle"))
        now = await me.submit("now")
        await me.until(now, "processing")
        assert [await ann.status(one) for one in idle] == ["processing", "queued", "queued", "queued"]
        at.ollama.pace.release(1000)
        for one in idle:
            await ann.until(one, "completed")
        assert [one for one in asked_for(at) if one != "now"] == ["ann 0", "bob", "ann 1", "ann 2"]


async def test_an_idle_prompt_that_can_run_nowhere_fails_and_one_that_waits_can_be_cancelled(tmp_path: Path) -> None:
    """And none of them stands in the way of the next."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        assert "not found" in (await me.until(await me.submit(run="idle", model="nope"), "failed"))["error"]
        at.ollama.pace.hold()
        runs, waits, late = [await me.submit(text, run="idle") for text in ("runs", "waits", "late")]
        await me.until(runs, "processing")
        await me.get(f"prompt/{waits}", method="DELETE")
        soon = (datetime.now(UTC) + timedelta(milliseconds=100)).isoformat()
        await me.until(await me.submit(run="idle", deadline=soon), "failed")
        at.ollama.pace.release(1000)
        for one in (runs, late):
            await me.until(one, "completed")
        assert asked_for(at)[1:] == ["runs", "late"]


async def test_a_prompt_for_a_window_waits_for_it(tmp_path: Path) -> None:
    """Its deadline counts meanwhile, and others go before it."""
    async with prompting(tmp_path, **closed()) as (at, me), asyncio.timeout(SOON_S):
        waits = await me.submit("night", run="window")
        await me.until(await me.submit("day"), "completed")
        assert await me.get(f"prompt/{waits}/result") == (200, {"id": waits, "status": "queued", "run": "window"})
        soon = (datetime.now(UTC) + timedelta(milliseconds=100)).isoformat()
        late = await me.until(await me.submit(run="window", deadline=soon), "failed")
        assert late["error"] == "its deadline has gone by"
        assert (await me.get(f"prompt/{waits}", method="DELETE"))[1]["status"] == "cancelled"
        assert asked_for(at) == ["day"]


async def test_prompts_may_have_windows_of_their_own(tmp_path: Path) -> None:
    """And where there are none at all a prompt that would wait for one is refused."""
    async with prompting(tmp_path, **closed(), prompts__windows=["00:00-24:00"]) as (_, me), asyncio.timeout(SOON_S):
        await me.until(await me.submit(run="window"), "completed")
    async with prompting(tmp_path, pulls__windows=[]) as (_, me):
        status, said = await me.post({"prompt": "x", "run": "window"})
        assert (status, "prompts.windows" in said["error"]) == (400, True)


async def nowhere(_model: str, _user: str) -> bool:
    """The store has no model."""
    return False


@asynccontextmanager
async def working(at: Fronted, clock: Clock, window: Window) -> AsyncIterator[Prompts]:
    """Prompts with a window, by a clock."""
    parts, lives = at.mirror.parts, Lives()
    prompts = parts.prompting.prompts
    attempts = Attempts(parts.turns, parts.pool, silence_s=5, retries=3)
    idle = IdleTurns(parts.turns, parts.pool, 1)
    running = Running(prompts, lives, parts.turns, idle, parts.pool, attempts, attempts, parts.events, nowhere)
    async with asyncio.TaskGroup() as group:
        schedule = Schedule((window,), ZoneInfo("UTC"))
        worker = Worker(prompts, running, lives, parts.settings.prompts, schedule, clock)
        task = group.create_task(worker.run())
        try:
            yield prompts
        finally:
            task.cancel()


async def test_the_window_s_opening_begins_what_waits_for_it(tmp_path: Path) -> None:
    """By itself, at that instant; and after its end nothing more is begun."""
    asked = parse_prompt({"prompt": "say", "run": "window"}, "m")
    clock = NightClock()
    async with fronted(tmp_path, prompts__enabled=False) as at, working(at, clock, NIGHT) as prompts:
        first = await prompts.ask(asked, "ann")

        async def is_done() -> bool:
            found = await prompts.find(first.id)
            return found is not None and found.state is State.COMPLETED

        clock.move(hours=9)
        await prompts.ask(parse_prompt({"prompt": "day"}, "m"), "bob")
        await at.ollama.troubles.wait_for(lambda: len(asked_for(at)) == 1)
        clock.move(hours=2)
        await eventually(is_done)
        clock.move(hours=8)
        await prompts.ask(asked, "ann")
        await prompts.ask(parse_prompt({"prompt": "morning"}, "m"), "bob")
        await at.ollama.troubles.wait_for(lambda: len(asked_for(at)) == 3)
        assert asked_for(at) == ["day", "say", "morning"]


async def test_what_has_no_turn_by_the_end_of_the_window_waits_for_the_next(tmp_path: Path) -> None:
    """It leaves the queue of turns; what had begun goes on."""
    async with fronted(tmp_path, prompts__enabled=False) as at, asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        async with working(at, WallClock(), Once()) as prompts:
            asked = parse_prompt({"prompt": "say", "run": "window"}, "m")
            begun = await prompts.ask(asked, "ann")
            await at.ollama.troubles.wait_for(lambda: len(asked_for(at)) == 1)
            late = await prompts.ask(asked, "bob")

            async def waits() -> bool:
                return at.mirror.parts.turns.waiting == 1

            async def has_left() -> bool:
                return at.mirror.parts.turns.waiting == 0

            await eventually(waits)
            await eventually(has_left)
            states = [(await prompts.find(one.id) or one).state for one in (begun, late)]
            assert states == [State.PROCESSING, State.QUEUED]
