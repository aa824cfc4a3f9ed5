"""``/mirror/v1/earlier`` and two orders on models: what tags meant before, going back to it, and going on again."""

from collections.abc import Iterable

from aiohttp import web

from mirror.fill import Rollback
from mirror.values import ModelName
from mirror.web.problems import answering
from mirror.web.requests import BadRequest, body_of, lines
from mirror.web.steps import rollback_steps
from mirror.web.views import earlier_view

_BACK = '{"name": "llama3.2", "to": "0123456789ab"}'
_RELEASE = '{"name": "llama3.2"}'


class RollbackFace:
    """Rollback by HTTP. The gate lets admins in only."""

    def __init__(self, rollback: Rollback, host: str) -> None:
        self._rollback = rollback
        self._host = host

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get("/mirror/v1/earlier/{name:.+}", answering(self.earlier)),
            web.post("/mirror/v1/models/rollback", answering(self.back)),
            web.post("/mirror/v1/models/release", answering(self.release)),
        ]

    async def earlier(self, request: web.Request) -> web.StreamResponse:
        """List what a tag meant before and can mean again, the latest first."""
        name = ModelName.parse(request.match_info["name"], host=self._host)
        found = [earlier_view(one) for one in self._rollback.known(name)]
        return web.json_response({"name": name.short, "earlier": found})

    async def back(self, request: web.Request) -> web.StreamResponse:
        """Put a tag back, to ``to`` or else to what it meant before; lines of progress, the last success or error."""
        body = await body_of(request, _BACK, name=str, to=str)
        name = self._named(body.get("name"), _BACK)
        return await lines(request, rollback_steps(self._rollback, name, self._rollback.find(name, body.get("to"))))

    async def release(self, request: web.Request) -> web.StreamResponse:
        """Let a tag move with its upstream again; ``released`` is false where it was not held."""
        body = await body_of(request, _RELEASE, name=str)
        name = self._named(body.get("name"), _RELEASE)
        return web.json_response({"name": name.short, "released": await self._rollback.release(name)})

    def _named(self, said: str | None, accepted: str) -> ModelName:
        if said is None:
            raise BadRequest("no name", accepted)
        return ModelName.parse(said, host=self._host)
