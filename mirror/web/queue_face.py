"""``/mirror/v1/queue``: the queue of pulls, looked at and put in order."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from mirror.access import CALLER, Scope
from mirror.fill import Puller
from mirror.pulls import Wish
from mirror.values import ModelName
from mirror.web.hiding import hidden_from
from mirror.web.problems import answering
from mirror.web.queue_desk import ACTIONS, QueueDesk
from mirror.web.requests import BadRequest, body_of, lines
from mirror.web.steps import pull_steps, wish_steps

_ADD = '{"name": "llama3.2"}'
_ACT = '{"job": "llama3.2:latest"}'
_MOVE = '{"job": "llama3.2:latest", "position": 1}'
_NOTHING = "{}"
_MOST = 1000
_LARGEST_PRIORITY = 1000


class QueueFace:
    """The routes of the queue. Anybody who may pull may ask for a model; the rest is for admins."""

    def __init__(self, desk: QueueDesk, puller: Puller, *, offline: bool, keeps_filling: bool) -> None:
        self._desk = desk
        self._puller = puller
        self._offline = offline
        self._keeps_filling = keeps_filling

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of this face."""
        return [
            web.get("/mirror/v1/queue", answering(self.show)),
            web.get("/mirror/v1/queue/history", answering(self.history)),
            web.post("/mirror/v1/queue", answering(self.ask)),
            web.post("/mirror/v1/pulls", answering(self.pull)),
            web.post("/mirror/v1/queue/add", answering(self.add)),
            *(web.post(f"/mirror/v1/queue/{action}", answering(self._acting(action))) for action in ACTIONS),
        ]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show what is under way."""
        return web.json_response(self._seen(request, await self._desk.show()))

    async def history(self, request: web.Request) -> web.StreamResponse:
        """Show jobs that are over, the latest first; ``?n=`` bounds them."""
        said = request.query.get("n", "50")
        if not (said.isascii() and said.isdigit() and len(said) < 6):
            raise BadRequest(f"n={said}", "n=50")
        return web.json_response(self._seen(request, await self._desk.history(min(int(said), _MOST))))

    def _seen(self, request: web.Request, view: dict[str, Any]) -> dict[str, Any]:
        """Leave out jobs for models that the caller must not know of."""
        hidden, host = hidden_from(request, self._desk.wishes.admission), self._desk.host
        return {**view, "jobs": [one for one in view["jobs"] if not hidden(ModelName.parse(one["name"], host=host))]}

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """Want a model."""
        return await self._added(request, await body_of(request, _ADD, name=str))

    async def add(self, request: web.Request) -> web.StreamResponse:
        """Want a model before others, or, with ``at_once``, without waiting for a window: for admins."""
        body = await body_of(request, _ADD, name=str, priority=int, at_once=bool)
        if abs(body.get("priority", 0)) > _LARGEST_PRIORITY:  # the database has no room for just any number
            raise BadRequest(str(body["priority"])[:20], f"priority: -{_LARGEST_PRIORITY} to {_LARGEST_PRIORITY}")
        return await self._added(request, body)

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Fetch a model at once, and deliver it to the Ollamas that want it.

        Lines of progress, the last one with ``status`` success or ``error``.
        """
        body = await body_of(request, _ADD, name=str)
        if "name" not in body:
            raise BadRequest("no name", _ADD)
        name, caller = self._desk.named(body["name"]), request[CALLER]
        if self._offline:  # nobody works on the queue then
            return await lines(request, pull_steps(self._puller, name, caller.user))
        wish = Wish(name, caller.user, caller.who, limited=not Scope.ADMIN.within(caller.scopes))
        steps = wish_steps(self._desk.wishes, self._desk.worker, wish, stays=self._keeps_filling)
        return await lines(request, steps)

    async def _order(self, request: web.Request, action: str) -> dict[str, Any]:
        """Return what an action is about: all of the queue, a job, or a job and its place."""
        if action in ("pause", "resume", "run"):
            return await body_of(request, _NOTHING)
        if action == "move":
            body = await body_of(request, _MOVE, job=str, position=int)
        else:
            body = await body_of(request, _ACT, job=str)
        if "job" not in body:
            raise BadRequest("no job", _ACT)
        return body

    async def _added(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if "name" not in body:
            raise BadRequest("no name", _ADD)
        caller = request[CALLER]
        view = await self._desk.add(
            body["name"],
            caller.user,
            caller.who,
            priority=body.get("priority", 0),
            at_once=body.get("at_once", False),
            limited=not Scope.ADMIN.within(caller.scopes),
        )
        return web.json_response(view, status=202 if view["new"] else 200)

    def _acting(self, action: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def act(request: web.Request) -> web.StreamResponse:
            body = await self._order(request, action)
            return web.json_response(await self._desk.act(action, body.get("job", ""), body.get("position")))

        return act
