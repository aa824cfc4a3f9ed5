"""A prompt job on an Ollama: its turn, its answer word by word, and what that came to."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

import aiohttp

from mirror.access import ANONYMOUS
from mirror.config import Run
from mirror.dispatch import (
    PROMPT_SHARE,
    AllFailed,
    Ask,
    Attempts,
    Fetch,
    IdleTurns,
    Member,
    Pool,
    Turn,
    Turns,
    Wanted,
    model_key,
)
from mirror.errors import BackendDown, BackendError, NotDelivered
from mirror.events import Answered, Events
from mirror.ollama.lines import lines_of
from mirror.prompts.live import Live, Lives
from mirror.prompts.prompt import Prompt
from mirror.prompts.prompts import Prompts
from mirror.prompts.responses import response, whole
from mirror.values import InvalidModelName

LARGEST_ANSWER = 16_000_000
"""Characters."""
_MOST_TOKENS = 100_000_000
_OF_A_JOB = frozenset({"prompt", "options"})
_COUNTS = (("prompt", "input"), ("completion", "output"))
_TYPE = "application/json"


class Running:
    """Has prompt jobs answered on the members of a pool."""

    def __init__(
        self,
        prompts: Prompts,
        lives: Lives,
        turns: Turns,
        idle: IdleTurns,
        pool: Pool,
        attempts: Attempts,
        patient: Attempts,
        events: Events,
        fetch: Fetch,
    ) -> None:
        """``patient`` is for answers of which nothing comes before all of it has been made."""
        self._prompts = prompts
        self._lives = lives
        self._turns = turns
        self._idle = idle
        self._pool = pool
        self._attempts = attempts
        self._patient = patient
        self._events = events
        self._fetch = fetch

    async def answer(self, prompt: Prompt, begun: Callable[[], Awaitable[Prompt]]) -> str:
        """Wait for a turn, tell ``begun``, and return the whole answer; a task that is cancelled ends its generation.

        Its texts are read when it has a turn, so that those that wait take no memory.

        Raises:
            NowhereToRun, AllDown, AllFailed, BackendError: no Ollama has answered, or none to the end.
            NotAllowed: its model may not be brought to one.
            TooManyWaiting, UserBlocked, NoTurn: it was not begun.
        """
        wanted = await self._within_reach(prompt)
        turns = self._idle if prompt.run is Run.IDLE else self._turns
        async with turns.turn(prompt.user, wanted, prompt.cost) as turn:
            current = await begun()
            body = await self._prompts.body(current)
            async with AsyncExitStack() as stack:
                if prompt.path is not None:
                    return await self._response(prompt, turn, prompt.path, {"model": prompt.model, **body}, stack)
                live = self._lives.begin(prompt.id, current.tries)
                path = "/api/chat" if "messages" in body else "/api/generate"
                said = {"model": prompt.model, **body, "stream": True}
                chunks = await self._begun(self._attempts, prompt, turn, partial(_asked, path=path, body=said), stack)
                async with aclosing(lines_of(chunks)) as lines:
                    last = await _heard(lines, live)
            self._count(prompt, turn, last.get("prompt_eval_count"), last.get("eval_count"))
            return live.whole()

    async def _response(
        self, prompt: Prompt, turn: Turn, path: str, body: Mapping[str, Any], stack: AsyncExitStack
    ) -> str:
        """Have a line of a batch answered, as a whole."""
        asked = partial(_asked, path=path, body=body)
        said = await whole(await self._begun(self._patient, prompt, turn, asked, stack))
        found = said.get("usage")
        usage = found if isinstance(found, dict) else {}
        read, made = (usage.get(f"{one}_tokens", usage.get(f"{other}_tokens")) for one, other in _COUNTS)
        self._count(prompt, turn, read, made)
        return await asyncio.to_thread(response, prompt.id, 200, said)

    async def _within_reach(self, prompt: Prompt) -> Wanted:
        """Return what is wanted; a model that no Ollama has is looked for once more, and brought from the store."""
        wanted = Wanted(model=model_key(prompt.model), job=await self._is_job(prompt))
        if not self._pool.possible(wanted):
            await self._pool.look_again()
        if not self._pool.possible(wanted) and await self._brought(prompt):
            await self._pool.look_again()
        return wanted

    async def _is_job(self, prompt: Prompt) -> bool:
        """Whether a node will do that takes nothing but a prompt and options."""
        if prompt.path is not None or all(one.relays for one in self._pool):
            return False
        return (await self._prompts.body(prompt)).keys() <= _OF_A_JOB

    async def _begun(
        self, attempts: Attempts, prompt: Prompt, turn: Turn, asked: Ask, stack: AsyncExitStack
    ) -> AsyncGenerator[bytes, None]:
        """Return the answer as it comes; an Ollama that says it lacks the model is brought that, once."""
        try:
            return await attempts.begun(turn, model_key(prompt.model), asked, stack)
        except AllFailed as error:
            if any(one.status != 404 for one in error.failures) or not await self._brought(prompt):
                raise
        return await attempts.begun(turn, model_key(prompt.model), asked, stack)

    async def _brought(self, prompt: Prompt) -> bool:
        """Bring a model from the store, where only that has it."""
        with suppress(NotDelivered, InvalidModelName):
            return await self._fetch(prompt.model, prompt.asker or ANONYMOUS)
        return False

    def _count(self, prompt: Prompt, turn: Turn, prompt_tokens: object, made_tokens: object) -> None:
        """Tell what it came to."""
        read, made = _tokens(prompt_tokens), _tokens(made_tokens)
        turn.cost = max(1.0, made + PROMPT_SHARE * read)
        held_s = self._turns.held_s(turn)
        self._events.publish(
            Answered(prompt.user, prompt.model, turn.member.id, read, made, turn.waited_s, held_s, 200)
        )


async def _heard(lines: AsyncIterator[dict[str, Any]], live: Live) -> dict[str, Any]:
    """Say what comes, and return the last line. Raises BackendError for what is no answer, or too long a one."""
    async for line in lines:
        message = line.get("message")
        piece = message.get("content") if isinstance(message, dict) else line.get("response")
        if isinstance(piece, str) and piece:
            live.say(piece)
        if live.length > LARGEST_ANSWER:
            raise BackendError(f"the answer has more than {LARGEST_ANSWER} characters")
        if line.get("done") is True:
            return line
    raise BackendDown("the answer ended before it was done")


@asynccontextmanager
async def _asked(member: Member, path: str, body: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
    path = path if member.relays else "/execute"
    raw = json.dumps(body).encode()
    headers = {"Content-Type": _TYPE, "Content-Length": str(len(raw))}
    async with member.backend.asked("POST", path, headers, raw) as reply:
        yield reply


def _tokens(said: object) -> int:
    return min(said, _MOST_TOKENS) if type(said) is int and said > 0 else 0
