"""Does prompt jobs: each waits for its turn as its user does, says what comes, and is tried again if that may help."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from mirror.config import PromptSettings, Run
from mirror.dispatch import AllFailed
from mirror.errors import BackendRefused, MirrorError, NoTurn, TooManyWaiting, UserBlocked
from mirror.prompts.live import Lives
from mirror.prompts.prompt import NoSuchPrompt, Prompt, PromptsUnusable, State
from mirror.prompts.prompts import Prompts
from mirror.prompts.responses import failure
from mirror.prompts.running import Running
from mirror.pulls import Clock
from mirror.values.window import Schedule

log = structlog.get_logger(__name__)

_LONGEST_WAIT_S = 3600.0
_AGAIN_S = 30.0
_UNUSABLE_S = 1.0
_FORGET_S = 3600.0
_LATE = "its deadline has gone by"


class Worker:
    """Begins what waits, at most ``prompts.at_once`` of one user at once, so that nobody waits behind another's.

    Those that run while nobody else wants an Ollama have as many places of their own, so that others do not wait
    behind them. Those that wait for a window are begun while ``schedule`` is open; one that has no turn by its end
    waits for the next. Waiting for a turn is no try, however long it takes. For the event loop's thread; ``run`` it
    once.
    """

    def __init__(
        self,
        prompts: Prompts,
        running: Running,
        lives: Lives,
        settings: PromptSettings,
        schedule: Schedule,
        clock: Clock,
    ) -> None:
        self._prompts = prompts
        self._running = running
        self._lives = lives
        self._settings = settings
        self._schedule = schedule
        self._clock = clock
        self._tasks: dict[str, tuple[Prompt, asyncio.Task[None]]] = {}

    @property
    def ever_opens(self) -> bool:
        """Whether there is any window."""
        return bool(self._schedule.windows)

    async def run(self) -> None:
        """Work until cancelled; what runs then is queued again in the next life."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forget_old(), name="old prompts")
            while True:
                self._prompts.changed.clear()
                now, waiting = self._clock.now(), self._prompts.waiting
                for prompt in self._due(now, waiting):
                    task = group.create_task(self._do(prompt), name=f"prompt {prompt.id}")
                    self._tasks[prompt.id] = prompt, task
                await self._wait(now, waiting)

    async def cancel(self, prompt: Prompt) -> None:
        """End one that is under way, and its generation. Raises NoSuchPrompt where it is over."""
        await self._prompts.ended(prompt, State.CANCELLED)
        if (found := self._tasks.get(prompt.id)) is not None:
            found[1].cancel()
        else:
            self._lives.end(prompt.id)

    def _due(self, now: datetime, waiting: Sequence[Prompt]) -> list[Prompt]:
        """Return those that are to be begun now, and those whose deadline has gone by."""
        begun = Counter(_lane(prompt) for prompt, _ in self._tasks.values())
        closed = _any_window(waiting) and self._schedule.now(now) is None
        found = []
        for prompt in waiting:
            if prompt.id in self._tasks:
                continue
            late = prompt.deadline is not None and prompt.deadline <= now
            ready = prompt.ready(now) and not (closed and prompt.run is Run.WINDOW)
            if late or (ready and begun[_lane(prompt)] < self._settings.at_once):
                begun[_lane(prompt)] += 1
                found.append(prompt)
        return found

    async def _wait(self, now: datetime, waiting: Sequence[Prompt]) -> None:
        """Wait for a change, or for the next instant that changes something."""
        opens = self._schedule.next(now) if _any_window(waiting) else None
        instants = [one for prompt in waiting for one in (prompt.not_before, prompt.deadline)]
        instants.append(opens.start if opens is not None else None)
        due = min((one for one in instants if one is not None and one > now), default=None)
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(self._prompts.changed.wait()), group.create_task(self._clock.until(due))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()

    async def _do(self, prompt: Prompt) -> None:
        try:
            await self._done(prompt)
        except NoSuchPrompt:
            pass  # it was taken back meanwhile
        except PromptsUnusable as error:
            log.warning("prompt not done", id=prompt.id, problem=str(error))
            await asyncio.sleep(_UNUSABLE_S)
            self._prompts.lost(prompt.id)
        finally:
            self._tasks.pop(prompt.id, None)
            self._lives.end(prompt.id)
            self._prompts.changed.set()

    async def _done(self, prompt: Prompt) -> None:
        """Try once, in time, and write down what came of it."""
        left = prompt.deadline - self._clock.now() if prompt.deadline is not None else None
        time = asyncio.timeout(left.total_seconds() if left is not None else None)
        try:
            async with time:
                await self._tried(prompt)
        except TimeoutError:
            if not time.expired():
                raise
            await self._prompts.ended(prompt, State.FAILED, error=_LATE)

    async def _tried(self, prompt: Prompt) -> None:
        current = prompt
        closing = asyncio.timeout(self._open_for_s(prompt))

        async def begun() -> Prompt:
            nonlocal current
            closing.reschedule(None)
            current = await self._prompts.begun(prompt)
            return current

        try:
            async with closing:
                text = await self._running.answer(prompt, begun)
        except (NoSuchPrompt, PromptsUnusable):
            raise
        except MirrorError as error:
            await self._failed(prompt, current, error)
        except Exception as error:  # the edge of a job: the others go on
            if closing.expired():
                return  # it waits for the next window
            log.exception("prompt failed", id=prompt.id)
            said = f"unforeseen: {type(error).__name__}"
            result = _of_line(current, MirrorError(said), said)
            await self._prompts.ended(current, State.FAILED, error=said, result=result)
        else:
            await self._prompts.ended(current, State.COMPLETED, result=text)

    def _open_for_s(self, prompt: Prompt) -> float | None:
        """Return for how long a prompt job may still be begun; None is for ever."""
        if prompt.run is not Run.WINDOW:
            return None
        now = self._clock.now()
        span = self._schedule.now(now)
        return (span.end - now).total_seconds() if span is not None else 0.0

    async def _failed(self, prompt: Prompt, current: Prompt, error: MirrorError) -> None:
        """Queue it again where that may help, or give it up."""
        now = self._clock.now()
        if current is prompt and isinstance(error, NoTurn | TooManyWaiting | UserBlocked):
            wait_s = 0.0 if isinstance(error, NoTurn) else _AGAIN_S
            await self._prompts.given_back(prompt, str(error), now + timedelta(seconds=wait_s))
            return
        tried = current if current is not prompt else replace(prompt, tries=prompt.tries + 1)
        said = _said(error)
        if not _may_pass(error) or tried.tries >= self._settings.tries:
            log.info("prompt failed", id=prompt.id, model=prompt.model, tries=tried.tries, problem=said)
            await self._prompts.ended(tried, State.FAILED, error=said, result=_of_line(tried, error, said))
            return
        wait_s = min(_LONGEST_WAIT_S, self._settings.retry_delay * 2 ** min(tried.tries - 1, 20))
        await self._prompts.given_back(tried, said, now + timedelta(seconds=wait_s))

    async def _forget_old(self) -> None:
        while True:
            try:
                await self._prompts.forget_before(self._clock.now() - timedelta(seconds=self._settings.keep))
            except PromptsUnusable as error:
                log.warning("old prompts are not forgotten", problem=str(error))
            await asyncio.sleep(_FORGET_S)


def _lane(prompt: Prompt) -> tuple[str, bool]:
    """Return what shares its places."""
    return prompt.user, prompt.run is Run.IDLE


def _any_window(prompts: Sequence[Prompt]) -> bool:
    return any(one.run is Run.WINDOW for one in prompts)


def _may_pass(error: MirrorError) -> bool:
    """Say whether another try may have a better end: a model that nobody has, and a wrong request, have none."""
    match error:
        case AllFailed(failures=failures):
            return any(one.status != 404 for one in failures)
        case BackendRefused(status=status):
            return status == 200 or status >= 500
        case _:
            return not error.permanent


def _of_line(prompt: Prompt, error: MirrorError, said: str) -> str | None:
    """Return what is kept of a line of a batch that has failed."""
    return failure(prompt.id, prompt.path, error, said) if prompt.path is not None else None


def _said(error: MirrorError) -> str:
    if isinstance(error, AllFailed):
        return "; ".join(f"{one.node_id}: {one.message}" for one in error.failures)[:4000]
    return str(error)[:4000]
