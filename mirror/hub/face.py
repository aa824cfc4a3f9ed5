"""``/nodes``, ``/jobs`` and ``/healthz``: the hub, in the JSON of older ones."""

from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from mirror.access import CALLER, RIGHTS, Scope
from mirror.hub.jobs import Jobs
from mirror.hub.node import Node, parse_heartbeat
from mirror.hub.registry import Nodes, NoSuchNode
from mirror.hub.replies import detailed, detailing, object_of, shows, unknown_caller

_LARGEST_HEARTBEAT = 2 << 20

Hiding = Callable[[web.Request], Callable[[str], bool]]


class HubFace:
    """The routes of the hub. Who may use which of them the gate decides; of heartbeats ``token``, if there is
    one; else a node needs what a user of the API needs: nothing, until a key for that was made.
    """

    def __init__(
        self, nodes: Nodes, jobs: Jobs | None = None, token: str | None = None, hiding: Hiding = lambda _: _nothing
    ) -> None:
        """Without ``jobs`` there is no /jobs. ``hiding`` says of a request which models its sender must not see."""
        self._nodes = nodes
        self._hiding = hiding
        self._jobs = jobs
        self._token = token

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of this face."""
        return [
            web.get("/healthz", self.health),
            web.get("/nodes", self.nodes),
            web.post("/nodes/heartbeat", detailing(self.heartbeat)),
            web.get("/nodes/{id}", detailing(self.node)),
            web.post("/nodes/{id}/drain", detailing(self.drain)),
            web.post("/nodes/{id}/enable", detailing(self.enable)),
            web.delete("/nodes/{id}", detailing(self.remove)),
            *([web.post("/jobs", self._jobs.answer)] if self._jobs is not None else []),
        ]

    async def health(self, _: web.Request) -> web.StreamResponse:
        """Say that it runs."""
        return web.json_response({"status": "ok"})

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        """Show every node."""
        hides = self._hiding(request)
        return web.json_response([_without(hides, self._view(node)) for node in self._nodes])

    async def node(self, request: web.Request) -> web.StreamResponse:
        """Show one node."""
        id_ = request.match_info["id"]
        found = self._nodes.get(id_)
        if found is None:
            raise NoSuchNode(id_)
        return web.json_response(_without(self._hiding(request), self._view(found)))

    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        """Take a heartbeat; answer with the node as it is known now."""
        if self._token is not None and not shows(request, self._token):
            return unknown_caller()
        rights = request.get(RIGHTS)
        refusal: web.Response | None = rights.refusal(Scope.API) if rights is not None and self._token is None else None
        if refusal is not None:
            return refusal
        heartbeat = parse_heartbeat(await object_of(request, _LARGEST_HEARTBEAT))
        caller = request.get(CALLER)
        came_from = caller.address if caller is not None else request.remote
        if not came_from:
            return detailed(400, "where this heartbeat comes from cannot be told")
        return web.json_response(self._view(self._nodes.beat(heartbeat, came_from)))

    async def drain(self, request: web.Request) -> web.StreamResponse:
        """Give a node no more work."""
        return web.json_response(self._view(self._nodes.drain(request.match_info["id"])))

    async def enable(self, request: web.Request) -> web.StreamResponse:
        """Give a node work again."""
        return web.json_response(self._view(self._nodes.enable(request.match_info["id"])))

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Forget a node."""
        self._nodes.remove(request.match_info["id"])
        return web.Response(status=204)

    def _view(self, node: Node) -> dict[str, Any]:
        return node.view(self._nodes.status(node))


def _without(hides: Callable[[str], bool], view: dict[str, Any]) -> dict[str, Any]:
    return {**view, **{key: [one for one in view[key] if not hides(one)] for key in ("models", "loaded")}}


def _nothing(_: str) -> bool:
    return False
