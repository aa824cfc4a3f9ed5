"""Jobs on the pool: a turn for each, and another node where one fails before its first byte."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import aiohttp
from aiohttp import web

from mirror.access import Users, user_of
from mirror.dispatch import Attempts, Member, Pool, Turns, Wanted, model_key
from mirror.fill import Admission
from mirror.hub.jobs import Prompt, Run

_MADE = 256.0


class OnThePool:
    """Runs jobs on the members of a pool, nodes and Ollamas alike."""

    def __init__(
        self,
        turns: Turns,
        pool: Pool,
        users: Users,
        admission: Admission,
        aliases: Mapping[str, str],
        *,
        silence_s: float,
        retries: int,
    ) -> None:
        """``silence_s`` is the longest before a node's first byte."""
        self._turns = turns
        self._pool = pool
        self._users = users
        self._admission = admission
        self._aliases = {name.lower(): real for name, real in aliases.items()}
        self._attempts = Attempts(turns, pool, silence_s=silence_s, retries=retries)

    @asynccontextmanager
    async def execute(self, job: Prompt, request: web.Request) -> AsyncIterator[Run]:
        """Yield the job as it runs; see ``jobs.Executor``."""
        user = self._users.of(request)
        job = replace(job, model=self._aliases.get(job.model.lower(), job.model))
        self._admission.before_named(job.model, user_of(request))
        key = model_key(job.model)
        wanted = Wanted(model=key, job=True)
        if not self._pool.possible(wanted):
            await self._pool.look_again()
        async with self._turns.turn(user, wanted, _MADE + len(job.prompt) / 40) as turn, AsyncExitStack() as stack:
            chunks = await self._attempts.begun(turn, key, lambda member: _asked(member, job), stack)
            yield Run(chunks, {"X-Mirror-Node": turn.member.id})


@asynccontextmanager
async def _asked(member: Member, job: Prompt) -> AsyncIterator[aiohttp.ClientResponse]:
    path = "/execute" if member.node else "/api/generate"
    body = json.dumps(job.body()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    async with member.backend.asked("POST", path, headers, body) as reply:
        yield reply
