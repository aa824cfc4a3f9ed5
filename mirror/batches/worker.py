"""Does batches: has their lines answered as prompt jobs, a few at once, and writes what came of them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from datetime import datetime, timedelta

import structlog

from mirror.batches.batch import Batch, NoSuchBatch, State, TooLarge
from mirror.batches.batches import Batches
from mirror.batches.entries import Entries, Entry, counted
from mirror.batches.files import Files
from mirror.batches.output import EXPIRED, written
from mirror.errors import MirrorError
from mirror.fill import Admission
from mirror.prompts import Asked, Line, Lines, NoSuchPrompt, Prompt, Prompts, PromptsUnusable, TooManyPrompts, refusal
from mirror.prompts import Worker as PromptWorker
from mirror.pulls import Clock
from mirror.values import Invalid

log = structlog.get_logger(__name__)

MOST_LINES = 50_000
_AGAIN_S = 5.0
_FORGET_S = 3600.0
_TOGETHER = 200


class _Stopped(Exception):
    """No more lines of a batch are to be begun."""


class Worker:
    """Works on the oldest batch of each user, and of each way to run, so that nobody waits behind another's.

    Of one batch twice ``at_once`` lines are prompt jobs at once: the rest stays in its file, and costs no memory. A
    line that was taken by a process that died is not taken again. For the event loop's thread; ``run`` it once.
    """

    def __init__(
        self,
        batches: Batches,
        files: Files,
        lines: Lines,
        prompts: Prompts,
        worker: PromptWorker,
        admission: Admission,
        clock: Clock,
        *,
        aliases: Mapping[str, str],
        at_once: int,
        longest_line: int,
        keep_s: float,
    ) -> None:
        self._batches = batches
        self._files = files
        self._lines = lines
        self._prompts = prompts
        self._worker = worker
        self._admission = admission
        self._clock = clock
        self._aliases = {name.lower(): real for name, real in aliases.items()}
        self._at_once = 2 * at_once
        self._longest_line = longest_line
        self._keep_s = keep_s
        self._tasks: dict[str, Batch] = {}
        self._open: dict[str, set[str]] = {}
        self._stirred: dict[str, asyncio.Event] = {}
        prompts.watchers.append(self._hear)

    async def run(self) -> None:
        """Work until cancelled; what is under way then goes on in the next life."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forget_old(), name="old batches")
            while True:
                self._batches.changed.clear()
                now = self._clock.now()
                for batch in self._due(now):
                    self._tasks[batch.id] = batch
                    self._stirred[batch.id] = asyncio.Event()
                    group.create_task(self._do(batch), name=batch.id)
                waiting = [one.expires_at for one in self._batches.under_way if one.id not in self._tasks]
                await self._wait(self._batches.changed, min(waiting, default=None))

    async def cancel(self, batch: Batch) -> Batch:
        """Begin no more of its lines, and end those that run. Raises NoSuchBatch where it is over."""
        if batch.state not in (State.VALIDATING, State.IN_PROGRESS):
            return batch
        changed = await self._batches.change(batch.id, State.CANCELLING)
        self._stir(batch.id)
        return changed

    def _hear(self, prompt: Prompt) -> None:
        if prompt.batch is not None:
            self._open.get(prompt.batch, set()).discard(prompt.id)
            self._stir(prompt.batch)

    def _stir(self, id_: str) -> None:
        if (event := self._stirred.get(id_)) is not None:
            event.set()

    def _due(self, now: datetime) -> list[Batch]:
        """Return those that are to be worked on; to their end come all without waiting for others."""
        busy = {(one.user, one.wanted.run) for one in self._tasks.values()}
        found = []
        for batch in self._batches.under_way:
            ending = batch.state is State.CANCELLING or batch.expires_at <= now
            lane = batch.user, batch.wanted.run
            if batch.id not in self._tasks and (ending or lane not in busy):
                busy.add(lane)
                found.append(batch)
        return found

    async def _wait(self, event: asyncio.Event, instant: datetime | None) -> None:
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(event.wait()), group.create_task(self._clock.until(instant))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()

    async def _do(self, batch: Batch) -> None:
        try:
            await self._done(batch)
        except NoSuchBatch:
            pass  # it is over
        except FileNotFoundError as error:
            log.warning("batch failed", id=batch.id, problem=str(error))
            with suppress(NoSuchBatch, PromptsUnusable):
                await self._take_back(batch)
                await self._batches.end(batch.id, State.FAILED, error="the input file is gone")
        except (PromptsUnusable, OSError, TooLarge) as error:
            log.warning("batch waits", id=batch.id, problem=str(error))
            await asyncio.sleep(_AGAIN_S)
        except Exception as error:  # the edge of a batch: the others go on
            log.exception("batch failed", id=batch.id)
            with suppress(NoSuchBatch, PromptsUnusable):
                await self._take_back(batch)
                await self._batches.end(batch.id, State.FAILED, error=f"unforeseen: {type(error).__name__}")
        finally:
            for known in (self._tasks, self._stirred, self._open):
                known.pop(batch.id, None)
            self._batches.changed.set()

    async def _done(self, batch: Batch) -> None:
        """Go through the states, from the one that an earlier life has come to."""
        if batch.state is State.VALIDATING:
            batch = await self._validated(batch)
        if batch.state is State.IN_PROGRESS:
            try:
                await self._fed(batch)
                batch = await self._batches.change(batch.id, State.FINALIZING, before=State.IN_PROGRESS)
            except _Stopped:
                batch = await self._batches.find(batch.id) or batch
        if not batch.state.over:
            await self._finished(batch)

    async def _validated(self, batch: Batch) -> Batch:
        path = self._files.path(batch.wanted.input_file)
        try:
            total = await self._files.in_thread(lambda: counted(path))
        except FileNotFoundError:
            return await self._batches.end(batch.id, State.FAILED, error="the input file is gone")
        if not 0 < total <= MOST_LINES:
            said = f"the input file has {total} lines, where 1 to {MOST_LINES} are taken"
            return await self._batches.end(batch.id, State.FAILED, error=said)
        return await self._batches.change(batch.id, State.IN_PROGRESS, before=State.VALIDATING, total=total)

    async def _fed(self, batch: Batch) -> None:
        """Have every line answered, or refused. Raises _Stopped where the batch is cancelled or has expired."""
        self._open[batch.id] = {one.id for one in self._prompts.of_batch(batch.id)}
        async with aclosing(self._rest(batch)) as rest:
            async for entry in rest:
                await self._room(batch, self._at_once)
                while not await self._taken(batch, entry):
                    await self._wait(self._stirred[batch.id], self._clock.now() + timedelta(seconds=_AGAIN_S))
                    await self._room(batch, self._at_once)
        await self._room(batch, 1)

    async def _rest(self, batch: Batch) -> AsyncGenerator[Entry, None]:
        """Yield the lines that were not taken yet."""
        last = await self._lines.last(batch.id)
        wanted = batch.wanted
        with Entries(self._files.path(wanted.input_file), wanted.endpoint, self._longest_line) as entries:
            while some := await self._files.in_thread(entries.some):
                for one in some:
                    if one.number > last:
                        yield one

    async def _room(self, batch: Batch, most: int) -> None:
        """Wait until fewer than so many lines are under way. Raises _Stopped."""
        event = self._stirred[batch.id]
        while True:
            event.clear()
            now = await self._batches.find(batch.id)
            if now is None or now.state is not State.IN_PROGRESS or now.expires_at <= self._clock.now():
                raise _Stopped
            if len(self._open[batch.id]) < most:
                return
            await self._wait(event, batch.expires_at)

    async def _taken(self, batch: Batch, entry: Entry) -> bool:
        """Have a line answered, unless something is wrong with it; False where there are too many prompts already."""
        line, problem = Line(batch.id, entry.number, entry.custom_id), entry.problem
        model = self._aliases.get(entry.model.lower(), entry.model)
        if problem is None:
            try:
                self._admission.before_named(model, batch.asker)
            except (Invalid, MirrorError) as error:
                problem = refusal("model_not_allowed", str(error))
        if problem is not None or entry.body is None:
            await self._prompts.refuse([(line, problem or "")], batch.user)
            return True
        wanted = batch.wanted
        asked = Asked(
            model=model,
            body=entry.body,
            cost=entry.cost,
            run=wanted.run,
            path=wanted.endpoint,
            line=line,
            asker=batch.asker,
        )
        try:
            prompt = await self._prompts.ask(asked, batch.user)
        except TooManyPrompts:
            return False
        self._open[batch.id].add(prompt.id)
        return True

    async def _finished(self, batch: Batch) -> None:
        """Take back what is not answered, and write what is."""
        await self._take_back(batch)
        expired = batch.state is State.IN_PROGRESS
        if expired:
            await self._expire(batch)
        ends = {State.CANCELLING: State.CANCELLED, State.FINALIZING: State.COMPLETED}
        done = await written(self._files, self._lines, batch, expired=expired)
        try:
            await self._batches.end(
                batch.id,
                ends.get(batch.state, State.EXPIRED),
                done.files,
                output_file=done.output.id if done.output is not None else None,
                error_file=done.errors.id if done.errors is not None else None,
                completed=done.completed,
                failed=done.failed,
            )
        except MirrorError:
            await self._files.discard(done.files)
            raise

    async def _take_back(self, batch: Batch) -> None:
        for prompt in self._prompts.of_batch(batch.id):
            with suppress(NoSuchPrompt):  # it has just been answered
                await self._worker.cancel(prompt)

    async def _expire(self, batch: Batch) -> None:
        """Note of the lines that were never begun that they are late."""
        late: list[tuple[Line, str]] = []
        async with aclosing(self._rest(batch)) as rest:
            async for entry in rest:
                late.append((Line(batch.id, entry.number, entry.custom_id), entry.problem or EXPIRED))
                if len(late) >= _TOGETHER:
                    await self._prompts.refuse(late, batch.user)
                    late = []
        await self._prompts.refuse(late, batch.user)

    async def _forget_old(self) -> None:
        while True:
            before = self._clock.now() - timedelta(seconds=self._keep_s)
            try:
                await self._batches.forget_before(before)
                await self._files.forget_before(before, {one.wanted.input_file for one in self._batches.under_way})
            except PromptsUnusable as error:
                log.warning("old batches are not forgotten", problem=str(error))
            await asyncio.sleep(_FORGET_S)
