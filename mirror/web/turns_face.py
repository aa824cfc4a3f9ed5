"""``/mirror/v1/turns``: who waits for a turn and who has one, and the Ollamas they are on."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from mirror.db import Tallies
from mirror.dispatch import Pool, Turns
from mirror.fill import Admission
from mirror.hub import Nodes
from mirror.web.hiding import hidden_from
from mirror.web.problems import answering, problem
from mirror.web.requests import BadRequest, body_of
from mirror.web.turn_views import backend_view, users_view

_MOST_DAYS = 3660
_USER = '{"user": "ann"}'
_WEIGHT = '{"user": "ann", "weight": 2}'
_BACKEND = '{"backend": "127.0.0.1:11435"}'


class TurnsFace:
    """Shows turns, and changes who gets them: for admins, until the mirror ends."""

    def __init__(self, turns: Turns, pool: Pool, nodes: Nodes, tallies: Tallies, admission: Admission) -> None:
        self._turns = turns
        self._nodes = nodes
        self._tallies = tallies
        self._pool = pool
        self._admission = admission

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of this face."""
        return [
            web.get("/mirror/v1/turns", answering(self.show)),
            web.get("/mirror/v1/usage", answering(self.usage)),
            web.post("/mirror/v1/turns/block", answering(self._about_a_user(self._turns.block))),
            web.post("/mirror/v1/turns/unblock", answering(self._about_a_user(self._turns.unblock))),
            web.post("/mirror/v1/turns/weigh", answering(self.weigh)),
            web.post("/mirror/v1/turns/drain", answering(self._about_a_backend(draining=True))),
            web.post("/mirror/v1/turns/enable", answering(self._about_a_backend(draining=False))),
        ]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show users and Ollamas."""
        return web.json_response(self._view(request))

    async def usage(self, request: web.Request) -> web.StreamResponse:
        """Show what each user had of each model on each of the last ``?days=``."""
        text = request.query.get("days", "30")
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= _MOST_DAYS):
            raise BadRequest(f"days={text[:20]}", f"days=30, at most {_MOST_DAYS}")
        rows = await self._tallies.read(int(text))
        return web.json_response({"usage": [{**asdict(one), "day": one.day.isoformat()} for one in rows]})

    async def weigh(self, request: web.Request) -> web.StreamResponse:
        """Give a user another share."""
        body = await body_of(request, _WEIGHT, user=str, weight=(int, float))
        weight = body.get("weight")
        if not body.get("user") or weight is None or not 0 < weight <= 1000:
            raise BadRequest(str(body), _WEIGHT)
        self._turns.weigh(body["user"], float(weight))
        return web.json_response(self._view(request))

    def _about_a_user(self, act: Callable[[str], None]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await body_of(request, _USER, user=str)
            if not body.get("user"):
                raise BadRequest("no user", _USER)
            act(body["user"])
            return web.json_response(self._view(request))

        return handle

    def _about_a_backend(self, *, draining: bool) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await body_of(request, _BACKEND, backend=str)
            member = self._pool.get(body.get("backend", ""))
            if member is None:
                known = ", ".join(one.id for one in self._pool) or "none"
                return problem(404, "Not Found", f"there is no such Ollama; there are: {known}")
            if member.node:
                (self._nodes.drain if draining else self._nodes.enable)(member.id)
            else:
                self._pool.drain(member, draining=draining)
            return web.json_response(self._view(request))

        return handle

    def _view(self, request: web.Request) -> dict[str, Any]:
        hidden = hidden_from(request, self._admission)
        return {
            "waiting": self._turns.waiting,
            "users": users_view(self._turns.users()),
            "backends": [backend_view(one, self._pool, hidden) for one in self._pool],
        }
