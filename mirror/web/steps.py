"""Long work as a row of JSON objects, one for each step; the same for the admin API and for commands.

Each is a context manager that yields the steps; leaving it before the end gives the work up. A foreseen failure is the
last step, ``{"error": ...}``, not an exception.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from mirror.db import TagHistory
from mirror.errors import MirrorError
from mirror.fill import Compared, Earlier, Puller, PullProgress, Repairer, Rollback, compare
from mirror.keep import Keeper, Plan, Row, Scrub, Scrubbed
from mirror.pulls import Job, State, Wish, Wishes, Worker, followed
from mirror.store import Problem, Store
from mirror.store.verify import running_verify
from mirror.upstream import Upstreams
from mirror.values import Invalid, ModelName

Step = dict[str, Any]
Steps = AsyncIterator[Step]
Tell = Callable[[Step], None]


@asynccontextmanager
async def told(work: Callable[[Tell], Awaitable[Step]]) -> AsyncIterator[Steps]:
    """Yield what ``work`` tells, and then what it returns, or the failure."""
    steps: asyncio.Queue[Step | None] = asyncio.Queue()

    async def run() -> None:
        try:
            steps.put_nowait(await work(steps.put_nowait))
        except (MirrorError, Invalid) as error:
            steps.put_nowait({"status": "error", "error": str(error)})
        finally:
            steps.put_nowait(None)

    async def in_turn() -> Steps:
        while (step := await steps.get()) is not None:
            yield step

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        try:
            yield in_turn()
        finally:
            task.cancel()


@asynccontextmanager
async def outdated_steps(
    store: Store, upstreams: Upstreams, history: TagHistory, names: Iterable[ModelName]
) -> AsyncIterator[Steps]:
    """Ask which models are older than what is upstream: a step for each, and how many at the end, without held ones."""

    async def work(tell: Tell) -> Step:
        found: list[Compared] = []

        def told_of(one: Compared) -> None:
            found.append(one)
            tell(compared_view(one))

        await compare(store, upstreams, history, names, told_of)
        outdated = [one for one in found if one.outdated and not one.held]
        return {"status": "done", "outdated": len(outdated), "lacking": sum(one.lacking for one in outdated)}

    async with told(work) as steps:
        yield steps


def compared_view(one: Compared) -> Step:
    """Return a model and its tag upstream; ``state`` is outdated, held (outdated, and to stay), current, gone, unknown.

    ``held`` is true for every tag that people hold.
    """
    if one.problem is not None:
        state = "unknown"
    elif one.there is None:
        state = "gone"
    else:
        state = "current" if not one.outdated else "held" if one.held else "outdated"
    return {
        "status": "compared",
        "name": one.name.short,
        "state": state,
        "here": str(one.here),
        "there": str(one.there) if one.there is not None else None,
        "size": one.size,
        "lacking": one.lacking,
        "held": one.held,
        "problem": one.problem,
    }


@asynccontextmanager
async def pull_steps(puller: Puller, name: ModelName, user: str) -> AsyncIterator[Steps]:
    """Pull a model for a user; what came of it is kept when it is given up."""

    async def work(tell: Tell) -> Step:
        try:
            final = await puller.pull(
                name, lambda progress: tell({"status": "pulling", **progress_view(progress)}), user
            )
        except (MirrorError, Invalid) as error:
            return {"status": "error", "name": name.short, "error": str(error)}
        return {"status": "success", **progress_view(final)}

    async with told(work) as steps:
        yield steps


@asynccontextmanager
async def wish_steps(wishes: Wishes, worker: Worker, wish: Wish, *, stays: bool) -> AsyncIterator[Steps]:
    """Have a wish fulfilled now, and delivered; when it is given up, its job ``stays`` or is taken back."""

    async def work(tell: Tell) -> Step:
        def look(job: Job) -> None:
            if (progress := worker.progress(job)) is not None:
                status = "delivering" if job.state is State.DELIVERING else "pulling"
                tell({"status": status, **progress_view(progress)})

        try:
            asked = await wishes.want(replace(wish, at_once=True))
            ended = await followed(wishes.queue, asked, look, patient=False, stays=stays)
        except (MirrorError, Invalid) as error:
            return {"status": "error", "name": wish.name.short, "error": str(error)}
        final = worker.progress(ended) or PullProgress(ended.name, ended.size or 0, ended.size or 0, 0)
        return {"status": "success", **progress_view(final)}

    async with told(work) as steps:
        yield steps


@asynccontextmanager
async def rollback_steps(rollback: Rollback, name: ModelName, earlier: Earlier) -> AsyncIterator[Steps]:
    """Put a tag back to an earlier manifest: progress, and at the end where it is held."""

    async def work(tell: Tell) -> Step:
        try:
            final = await rollback.back(
                name, earlier, lambda progress: tell({"status": "pulling", **progress_view(progress)})
            )
        except (MirrorError, Invalid) as error:
            return {"status": "error", "name": name.short, "error": str(error)}
        return {"status": "success", **progress_view(final), "digest": str(earlier.digest), "held": True}

    async with told(work) as steps:
        yield steps


@asynccontextmanager
async def verify_steps(store: Store) -> AsyncIterator[Steps]:
    """Verify the tree: progress and problems, and at the end how many problems there are."""

    async def in_turn() -> Steps:
        problems = 0
        async for step in found:
            if isinstance(step, Problem):
                problems += 1
                yield {"problem": step.what, "path": str(step.path)}
            else:
                yield {"done": step.done, "total": step.total}
        yield {"problems": problems}

    async with running_verify(store.layout) as found:
        yield in_turn()


@asynccontextmanager
async def gc_steps(keeper: Keeper, *, dry_run: bool, everything: bool = False) -> AsyncIterator[Steps]:
    """Tidy up: each thing that goes (or, on a dry run, would go), and at the end what that comes to."""

    async def work(tell: Tell) -> Step:
        if dry_run:
            plan = await keeper.plan(everything=everything)
            for row in plan.rows:
                tell(row_view(row, row.frees))
            return {**plan_view(plan), "removed": len(plan.rows), "freed": plan.frees, "dry_run": True}
        done = await keeper.collect(lambda row, freed: tell(row_view(row, freed)), everything=everything)
        return {**plan_view(done.plan), "removed": len(done.done), "freed": done.freed, "dry_run": False}

    async with told(work) as steps:
        yield steps


@asynccontextmanager
async def scrub_steps(scrub: Scrub, repairer: Repairer, rate: int | None, *, repair: bool) -> AsyncIterator[Steps]:
    """Hash every blob: progress and what is damaged; then fetch that again, if ``repair``, and say how it went."""

    async def work(tell: Tell) -> Step:
        damaged = 0

        def report(step: Scrubbed) -> None:
            nonlocal damaged
            if step.damaged is not None:
                damaged += 1
                tell({"damaged": str(step.damaged), "models": [name.short for name in step.names]})
            tell({"done": step.done, "total": step.total})

        final = await scrub.scrub(report, rate)
        repaired = await _repair_all(repairer, tell) if repair and damaged else {}
        return {"blobs": final.blobs, "bytes": final.done, "found_damaged": damaged, **repaired}

    async with told(work) as steps:
        yield steps


@asynccontextmanager
async def repair_steps(repairer: Repairer) -> AsyncIterator[Steps]:
    """Fetch again what damaged models lack: progress, how each one ended, and at the end how many are whole again."""

    async def work(tell: Tell) -> Step:
        return await _repair_all(repairer, tell)

    async with told(work) as steps:
        yield steps


async def _repair_all(repairer: Repairer, tell: Tell) -> Step:
    outcomes = []
    for stored in repairer.damaged():
        try:
            await repairer.repair(stored.name, lambda progress: tell({"status": "pulling", **progress_view(progress)}))
            tell({"repaired": stored.name.short})
            outcomes.append(True)
        except MirrorError as error:
            tell({"not_repaired": stored.name.short, "problem": str(error)})
            outcomes.append(False)
    return {"repaired_models": outcomes.count(True), "damaged_models": outcomes.count(False)}


def progress_view(progress: PullProgress) -> Step:
    """Return a pull's progress: bytes here, bytes in all, bytes fetched just now."""
    return {
        "name": progress.name.short,
        "completed": progress.done,
        "total": progress.total,
        "fetched": progress.fetched,
    }


def row_view(row: Row, freed: int) -> Step:
    """Return one thing that goes."""
    return {
        "kind": row.kind.value,
        "what": row.what,
        "freed": freed,
        "reason": row.reason.value,
        "why": row.why,
        "used_at": _text(row.used_at),
    }


def plan_view(plan: Plan) -> Step:
    """Return what a plan comes to: the store's bytes before and after, what stays though it is old, what is short."""
    return {
        "size_before": plan.size_before,
        "size_after": plan.size_after,
        "kept": [{"name": name.short, "why": why} for name, why in plan.kept],
        "short": plan.short,
    }


def _text(instant: datetime | None) -> str | None:
    return instant.isoformat(timespec="seconds") if instant else None
