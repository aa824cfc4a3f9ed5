"""Jobs on the pool: a turn for each, and another node where one fails before its first byte."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

import aiohttp
from aiohttp import web

from mirror.access import Users
from mirror.dispatch import Member, Pool, Turn, Turns, Wanted, model_key
from mirror.errors import AllDown, BackendDown, BackendRefused, NoTurn, NowhereToRun
from mirror.fill import Admission
from mirror.hub.jobs import AllFailed, Failure, Prompt, Run
from mirror.values import InvalidModelName, ModelName

_MADE = 256.0
_LARGEST_REFUSAL = 64 << 10
_WRONG_JOB = (400, 413, 422)
"""What a node says of a job that no other node will take either; any other refusal is about the node."""


class OnThePool:
    """Runs jobs on the members of a pool, nodes and Ollamas alike."""

    def __init__(
        self, turns: Turns, pool: Pool, users: Users, admission: Admission, host: str, *, silence_s: float, retries: int
    ) -> None:
        """``host`` is that of names which say none; ``silence_s`` is the longest before a node's first byte."""
        self._turns = turns
        self._pool = pool
        self._users = users
        self._admission = admission
        self._host = host
        self._silence_s = silence_s
        self._retries = retries

    @asynccontextmanager
    async def execute(self, job: Prompt, request: web.Request) -> AsyncIterator[Run]:
        """Yield the job as it runs; see ``jobs.Executor``."""
        user = self._users.of(request)
        with suppress(InvalidModelName):
            self._admission.before(ModelName.parse(job.model, host=self._host), user)
        wanted = Wanted(model=model_key(job.model), job=True)
        if not self._pool.possible(wanted):
            await self._pool.look_again()
        async with self._turns.turn(user, wanted, _MADE + len(job.prompt) / 40) as turn, AsyncExitStack() as stack:
            first, chunks = await self._begun(job, turn, stack)
            yield Run(_joined(first, chunks), {"X-Mirror-Node": turn.member.id})

    async def _begun(self, job: Prompt, turn: Turn, stack: AsyncExitStack) -> tuple[bytes, AsyncGenerator[bytes, None]]:
        """Try one member after the other until one has a first byte."""
        failures: list[Failure] = []
        while True:
            async with AsyncExitStack() as attempt:
                try:
                    async with asyncio.timeout(self._silence_s if turn.member.node else None):
                        reply = await attempt.enter_async_context(_asked(turn.member, job))
                        chunks = turn.member.backend.chunks(reply)
                        await attempt.enter_async_context(aclosing(chunks))
                        first = await anext(chunks, b"")
                    if reply.status < 300:
                        self._pool.succeeded(turn.member, model_key(job.model))
                        stack.push_async_exit(attempt.pop_all())
                        return first, chunks
                    failures.append(await self._refused(job, turn.member, reply.status, first))
                except (BackendDown, TimeoutError) as error:
                    said = str(error) or f"no byte within {self._silence_s:g} s"
                    self._pool.failed(turn.member, said, offline=isinstance(error, BackendDown))
                    failures.append(Failure(turn.member.id, said, 503))
            try:
                if len(failures) > self._retries:
                    raise AllFailed(tuple(failures))
                await self._turns.elsewhere(turn)
            except (NowhereToRun, AllDown, NoTurn):
                raise AllFailed(tuple(failures)) from None

    async def _refused(self, job: Prompt, member: Member, status: int, body: bytes) -> Failure:
        """Count a refusal. Raises BackendRefused where the job itself is at fault."""
        text = _text(body[:_LARGEST_REFUSAL]) or f"status {status}"
        if status == 404:
            self._pool.lacks(member, model_key(job.model))
        elif status in _WRONG_JOB:
            raise BackendRefused(status, text)
        elif status != 503:
            self._pool.failed(member, text, offline=False)
        return Failure(member.id, text, status)


@asynccontextmanager
async def _asked(member: Member, job: Prompt) -> AsyncIterator[aiohttp.ClientResponse]:
    path = "/execute" if member.node else "/api/generate"
    body = json.dumps(job.body()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    async with member.backend.asked("POST", path, headers, body) as reply:
        yield reply


async def _joined(first: bytes, chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in chunks:
        yield chunk


def _text(body: bytes) -> str:
    """Return what a node or an Ollama says is wrong."""
    with suppress(ValueError, RecursionError, AttributeError):
        said = json.loads(body)
        return str(said.get("detail") or said.get("error") or "")
    return body.decode("utf-8", "replace").strip()
