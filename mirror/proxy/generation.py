"""Answers of models: each request has its turn, on the Ollama that suits it best, and on another if that one fails."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from mirror.access import Users, user_of
from mirror.dispatch import PROMPT_SHARE, Fetch, Member, Meter, Pool, Turn, Turns, Wanted
from mirror.errors import AllDown, BackendDown, NotDelivered, NoTurn, NowhereToRun
from mirror.events import Answered, Events
from mirror.proxy.asked import Asked, read
from mirror.proxy.bodies import Refused
from mirror.proxy.handing import Answer
from mirror.proxy.headers import passed_on
from mirror.proxy.marks import QUEUED, unmarked
from mirror.proxy.relay import Relay, path_of
from mirror.proxy.table import Passed
from mirror.values import InvalidModelName

_LARGEST_FAILURE = 64 << 10
_MOST_HELD = 1 << 29
"""Bytes of all requests that wait or run."""
_ERROR_S = 1.5
"""An error that takes longer to be said is cut short: another Ollama may have an answer."""
_NO_MODEL = re.compile(rb"model .{0,700}not found", re.DOTALL)
_TOKENS_A_SECOND = 20.0
"""What time on an Ollama costs at least of one who leaves before it is known what was made."""


class Generation:
    """Runs requests. One that had no byte yet when its Ollama failed is answered by another."""

    def __init__(
        self,
        relay: Relay,
        turns: Turns,
        pool: Pool,
        users: Users,
        events: Events,
        fetch: Fetch,
        *,
        aliases: Mapping[str, str],
        retries: int,
    ) -> None:
        self._relay = relay
        self._turns = turns
        self._pool = pool
        self._users = users
        self._events = events
        self._fetch = fetch
        self._aliases = {name.lower(): real for name, real in aliases.items()}
        self._retries = retries
        self._held = 0

    @property
    def ready(self) -> bool:
        """Whether there is any Ollama to run requests."""
        return not self._pool.lone and any(one.online for one in self._pool)

    async def answer(self, request: web.Request, row: Passed) -> web.StreamResponse:
        """Answer a request that a model has to work for.

        Raises:
            Refused, NotAllowed: it is not let through.
            TooManyWaiting, UserBlocked, NoTurn: it gets no turn.
            AllDown: no Ollama can be used. BackendDown: each that was tried failed.
        """
        user = self._users.of(request)
        raw = await self._relay.body(request, row)
        if self._held and self._held + len(raw) > _MOST_HELD:
            raise Refused(429, "the requests that wait take too much memory already; try again later")
        self._held += len(raw)
        try:
            asked = await self._read(request, row, raw, user)
            wanted = await self._within_reach(asked, user_of(request))
            async with self._turns.turn(user, wanted, asked.cost) as turn:
                try:
                    return await self._run(request, row, asked, turn)
                finally:
                    if turn.cost is None:
                        turn.cost = max(asked.cost, _TOKENS_A_SECOND * self._turns.held_s(turn))
        finally:
            self._held -= len(raw)

    async def _read(self, request: web.Request, row: Passed, raw: bytes, user: str) -> Asked:
        """Return what a body asks for, aliases replaced. Raises Refused, NotAllowed."""
        asked = await read(raw, self._aliases, user)
        if asked.raw is not raw:
            await self._relay.vetted(request, row, asked.raw)
        if asked.text.startswith(QUEUED):
            raise Refused(404, f"model '{unmarked(asked.text)}' not found: it is queued")
        return asked

    async def _within_reach(self, asked: Asked, user: str) -> Wanted:
        """Return what is wanted so that there is an Ollama for it.

        A model that none has is looked for once more, brought from the store if that has it, and else asked of any
        Ollama, whose own words the client then gets.
        """
        wanted = Wanted(model=asked.model, conversation=asked.conversation)
        if self._pool.possible(wanted):
            return wanted
        await self._pool.look_again()
        if asked.model and not self._pool.possible(wanted) and await self._brought(asked.text, user):
            await self._pool.look_again()
        return wanted if self._pool.possible(wanted) else Wanted(conversation=asked.conversation)

    async def _run(self, request: web.Request, row: Passed, asked: Asked, turn: Turn) -> web.StreamResponse:
        """Try one Ollama after the other until one has a first byte for the client."""
        failures: list[_Failure] = []
        while True:
            done = await self._attempt(request, row, asked, turn)
            if isinstance(done, web.StreamResponse):
                return done
            failures.append(done)
            once_more = len(failures) <= self._retries
            if not once_more or not await self._again(request, asked, turn, failures):
                break
        turn.cost = 0.0
        if all(one.answer is not None for one in failures):
            for one in failures:  # what every Ollama refuses is the request's own fault
                self._pool.excuse(one.member)
        last = failures[-1]
        if last.answer is None:
            raise last.error
        return last.answer

    async def _again(self, request: web.Request, asked: Asked, turn: Turn, failures: "list[_Failure]") -> bool:
        """Have the turn go to another Ollama, or bring to this one the model that it lacks; False: neither can be."""
        try:
            await self._turns.elsewhere(turn)
        except (NowhereToRun, AllDown, NoTurn):
            missing = len(failures) == 1 and failures[0].status == 404
            return missing and await self._brought(asked.text, user_of(request))
        return True

    async def _brought(self, text: str, user: str) -> bool:
        """Bring a model from the store, where only that has it."""
        with suppress(NotDelivered, InvalidModelName):
            return await self._fetch(text, user)
        return False

    async def _attempt(
        self, request: web.Request, row: Passed, asked: Asked, turn: Turn
    ) -> "web.StreamResponse | _Failure":
        member, meter = turn.member, Meter()
        headers = passed_on(request.headers, request.remote or "unknown")
        headers["Content-Length"] = str(len(asked.raw))
        via = ", ".join(request.headers.getall("Via", []))
        try:
            async with member.backend.asked("POST", path_of(request, row), headers, asked.raw, via=via) as reply:
                answer = Answer(member.backend, reply, meter.watch)
                await answer.begin(_ERROR_S if reply.status >= 500 else None)
                if reply.status >= 500 or (reply.status == 404 and asked.model):
                    return await self._refused(member, asked, answer)
                self._pool.succeeded(member, asked.model if reply.status < 300 else "", asked.conversation)
                first_s = self._turns.held_s(turn)
                try:
                    return await answer.hand_on(request, _about(turn))
                finally:
                    self._account(asked, turn, meter, reply.status, first_s)
                    if answer.broken is not None:
                        self._pool.failed(member, str(answer.broken), offline=True)
        except BackendDown as error:
            self._pool.failed(member, str(error), offline=not member.node or not error.answered)
            return _Failure(member, error)

    async def _refused(self, member: Member, asked: Asked, answer: Answer) -> "_Failure":
        """Keep what an Ollama said that cannot do it, in case that no other can."""
        status, whole = answer.reply.status, await answer.whole(_LARGEST_FAILURE, _ERROR_S)
        if status == 404 and _NO_MODEL.search(whole.body if isinstance(whole.body, bytes) else b""):
            self._pool.lacks(member, asked.model)
        elif status == 404:
            pass  # an older Ollama, which does not know the route
        elif status != 503:  # that one is only busy
            self._pool.failed(member, f"status {status}", offline=False)
        said = BackendDown(f"{member.id} answered {status}")
        return _Failure(member, said, whole, status)

    def _account(self, asked: Asked, turn: Turn, meter: Meter, status: int, first_s: float) -> None:
        """Charge the user what the answer did cost, and tell the news."""
        usage = meter.usage()
        turn.cost = max(1.0, usage.made + PROMPT_SHARE * usage.prompt)
        user, waited_s, held_s = turn.place.user, turn.waited_s, self._turns.held_s(turn)
        self._events.publish(
            Answered(user, asked.text, turn.member.id, usage.prompt, usage.made, waited_s, held_s, status, first_s)
        )


@dataclass(frozen=True, slots=True)
class _Failure:
    """An attempt of which no byte has reached the client; ``answer`` is what the Ollama said, if it said anything."""

    member: Member
    error: BackendDown
    answer: web.Response | None = None
    status: int = 0


def _about(turn: Turn) -> dict[str, str]:
    return {
        "X-Mirror-Node": turn.member.id,
        "X-Mirror-Queue-Position": str(turn.position),
        "X-Mirror-Queue-Ms": str(round(turn.waited_s * 1000)),
    }
