"""Attempts at one request: a member after the other, until one of them has a first byte."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from dataclasses import dataclass

import aiohttp

from mirror.dispatch.pool import Member, Pool
from mirror.dispatch.turns import Turn, Turns
from mirror.dispatch.usage import PROMPT_SHARE, Meter
from mirror.errors import AllDown, BackendDown, BackendRefused, MirrorError, NoTurn, NowhereToRun

Ask = Callable[[Member], AbstractAsyncContextManager[aiohttp.ClientResponse]]

_ALL_FAILED = "All candidate nodes failed to execute the job"
_LARGEST_REFUSAL = 64 << 10
_WRONG_REQUEST = (400, 413, 422)
"""What a member says of a request that no other will take either; any other refusal is about the member."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a member answered that did not run a request; ``status`` is HTTP's, 503 where it was not reached."""

    node_id: str
    message: str
    status: int


class AllFailed(MirrorError):
    """Every member that could have run a request failed before the first byte of an answer."""

    permanent = False

    def __init__(self, failures: tuple[Failure, ...]) -> None:
        self.failures = failures
        super().__init__(_ALL_FAILED)


class Attempts:
    """Tries members while a turn lasts. For the event loop's thread.

    ``silence_s`` is the longest that a node may take to its first byte (Ollamas of the settings may take any time);
    ``retries`` is how many further members are tried.
    """

    def __init__(self, turns: Turns, pool: Pool, *, silence_s: float, retries: int) -> None:
        self._turns = turns
        self._pool = pool
        self._silence_s = silence_s
        self._retries = retries

    async def begun(self, turn: Turn, model: str, ask: Ask, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
        """Return the answer of the first member that has one, as it comes; what it stands on is for ``stack`` to end.

        ``model`` is a key; the turn is then on the member that answers. Reading raises BackendDown.

        Raises:
            AllFailed: none had a first byte.
            BackendRefused: one says that the request itself is wrong (4xx); the text is its own.
        """
        failures: list[Failure] = []
        while True:
            async with AsyncExitStack() as attempt:
                try:
                    async with asyncio.timeout(self._silence_s if turn.member.node else None):
                        reply = await attempt.enter_async_context(ask(turn.member))
                        chunks = turn.member.backend.chunks(reply)
                        await attempt.enter_async_context(aclosing(chunks))
                        first = await anext(chunks, b"")
                    if reply.status < 300:
                        self._pool.succeeded(turn.member, model)
                        stack.push_async_exit(attempt.pop_all())
                        return _joined(first, chunks, turn)
                    failures.append(self._refused(turn.member, model, reply.status, first))
                except (BackendDown, TimeoutError) as error:
                    said = str(error) or f"no byte within {self._silence_s:g} s"
                    unreached = isinstance(error, BackendDown) and not (turn.member.node and error.answered)
                    self._pool.failed(turn.member, said, offline=unreached)
                    failures.append(Failure(turn.member.id, said, 503))
            try:
                if len(failures) > self._retries:
                    raise AllFailed(tuple(failures))
                await self._turns.elsewhere(turn)
            except (NowhereToRun, AllDown, NoTurn):
                raise AllFailed(tuple(failures)) from None

    def _refused(self, member: Member, model: str, status: int, body: bytes) -> Failure:
        """Count a refusal. Raises BackendRefused where the request itself is at fault."""
        text = _text(body[:_LARGEST_REFUSAL]) or f"status {status}"
        if status == 404 and "not found" in text:
            self._pool.lacks(member, model)
        elif status == 404:
            pass  # an older one, which does not know the route
        elif status in _WRONG_REQUEST:
            raise BackendRefused(status, text)
        elif status != 503:
            self._pool.failed(member, text, offline=False)
        return Failure(member.id, text, status)


async def _joined(first: bytes, chunks: AsyncIterator[bytes], turn: Turn) -> AsyncGenerator[bytes, None]:
    """Yield the answer; what it came to is charged to the turn, however it ends."""
    meter = Meter()
    try:
        if first:
            meter.watch(first)
            yield first
        async for chunk in chunks:
            meter.watch(chunk)
            yield chunk
    finally:
        usage = meter.usage()
        turn.cost = max(1.0, usage.made + PROMPT_SHARE * usage.prompt)


def _text(body: bytes) -> str:
    """Return what a node or an Ollama says is wrong."""
    with suppress(ValueError, RecursionError, AttributeError):
        said = json.loads(body)
        error = said.get("detail") or said.get("error") or ""
        return str(error.get("message") or error) if isinstance(error, dict) else str(error)
    return body.decode("utf-8", "replace").strip()
