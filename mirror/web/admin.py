"""``/mirror/v1``: models, as commands and programs ask of a running mirror."""

from collections.abc import Iterable

from aiohttp import web

from mirror.db import Ledger
from mirror.fill import Admission
from mirror.store import Pins, Store
from mirror.upstream import Upstreams
from mirror.values import ModelName
from mirror.web.hiding import hidden_from
from mirror.web.problems import answering, problem
from mirror.web.requests import BadRequest, body_of, lines
from mirror.web.steps import outdated_steps
from mirror.web.views import model_details, models_view, removal_view

_NAMES = '{"names": ["llama3.2"]}'


class AdminFace:
    """Models. Long work answers with one JSON object a line, as it goes."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        pins: Pins,
        upstreams: Upstreams,
        admission: Admission,
        host: str,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._pins = pins
        self._upstreams = upstreams
        self._admission = admission
        self._host = host

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of the admin API; who may use them is in ``needs``."""
        return [
            web.get("/mirror/v1/models", answering(self.models)),
            web.get("/mirror/v1/models/{name:.+}", answering(self.model)),
            web.delete("/mirror/v1/models/{name:.+}", answering(self.remove)),
            web.post("/mirror/v1/outdated", answering(self.outdated)),
        ]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """List what is in the store, as far as the policy lets the caller know of it."""
        hidden = hidden_from(request, self._admission)
        return web.json_response({"models": await models_view(self._store, self._ledger, self._pins, hidden)})

    async def model(self, request: web.Request) -> web.StreamResponse:
        """Show one model with its blobs."""
        name = ModelName.parse(request.match_info["name"], host=self._host)
        if hidden_from(request, self._admission)(name):
            return _unknown(name)
        view = await model_details(name, self._store, self._ledger, self._pins)
        return web.json_response(view) if view else _unknown(name)

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Take a model out of the store; with ``?dry_run=true`` only say what that would free."""
        name = ModelName.parse(request.match_info["name"], host=self._host)
        if dry_run(request):
            view = await removal_view(name, self._store)
            return web.json_response(view) if view else _unknown(name)
        freed = await self._store.remove(name)
        if freed is None:
            return _unknown(name)
        return web.json_response({"name": name.short, "freed": freed, "dry_run": False})

    async def outdated(self, request: web.Request) -> web.StreamResponse:
        """Say which models are older than what is upstream, of ``names`` or of all; lines as the answers come."""
        body = await body_of(request, _NAMES, names=list)
        said = body.get("names", [])
        if not all(isinstance(one, str) for one in said):
            raise BadRequest(str(said), _NAMES)
        names = [ModelName.parse(one, host=self._host) for one in said]
        return await lines(request, outdated_steps(self._store, self._upstreams, self._ledger.tags, names))


def dry_run(request: web.Request) -> bool:
    """Say whether the query asks to change nothing. Raises BadRequest for a value that is neither yes nor no."""
    said = request.query.get("dry_run", "false").lower()
    if said not in ("", "1", "0", "true", "false"):
        raise BadRequest(f"dry_run={said}", "dry_run=true or dry_run=false")
    return said in ("", "1", "true")


def _unknown(name: ModelName) -> web.Response:
    return problem(404, "Not Found", f"{name.short} is not in the store")
