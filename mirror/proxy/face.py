"""``/api`` and ``/v1``: passed on to the Ollama behind the mirror, or answered from the store where there is none."""

from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from mirror.errors import (
    AllDown,
    AskedTooOften,
    BackendDown,
    MirrorError,
    NotAllowed,
    NoTurn,
    NowhereToRun,
    OnlyRead,
    QueueError,
    StoreFull,
    TooManyWaiting,
    UserBlocked,
)
from mirror.ollama import Backend, Behind, error_body
from mirror.proxy.bodies import Refused, body_of, compact, expecting
from mirror.proxy.generation import Generation
from mirror.proxy.models import Models
from mirror.proxy.own import OwnAnswers
from mirror.proxy.pulls import Pulls
from mirror.proxy.relay import Relay
from mirror.proxy.table import GENERATING, TABLE, Passed, allowed

_AGAIN_S = "5"
_LARGEST_NAMING = 1 << 20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOOP = "the Ollama behind this mirror is this mirror: set proxy.backend to the URL of an Ollama, or to none"


class ApiFace:
    """Every route of Ollama's API, and for all other paths the answer that Ollama gives."""

    def __init__(
        self,
        behind: Behind,
        relay: Relay,
        own: OwnAnswers,
        models: Models,
        pulls: Pulls,
        generation: Generation,
        *,
        max_body: int,
    ) -> None:
        self._behind = behind
        self._relay = relay
        self._own = own
        self._models = models
        self._pulls = pulls
        self._generation = generation
        self._max_body = max_body

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of this face; those of others below /api have to come before them."""
        listed = [
            web.route(
                method,
                row.path,
                self._answering(row),
                expect_handler=expecting,
                **({"allow_head": False} if method == "GET" else {}),  # Ollama answers HEAD where it says so only
            )
            for row in TABLE
            for method in row.methods
        ]
        others = [
            web.route("*", f"{root}{{rest:.*}}", self.unknown, expect_handler=expecting) for root in ("/api/", "/v1/")
        ]
        return [*listed, *others]

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """Answer what is no route as Ollama does (gin's default texts): 405 where another method would be one."""
        methods = allowed(request.rel_url.path_safe) or await _of_others(request)
        if not methods:
            return web.Response(status=404, text="404 page not found")
        return web.Response(status=405, text="405 method not allowed", headers={"Allow": ", ".join(methods)})

    def _answering(self, row: Passed) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await self._answer(request, row)
            except (MirrorError, web.HTTPNotFound) as error:
                return _reply(request, error)

        return answer

    async def _answer(self, request: web.Request, row: Passed) -> web.StreamResponse:
        if "Via" in request.headers and self._behind.leads_back(", ".join(request.headers.getall("Via"))):
            raise Refused(508, _LOOP)
        backend = await self._behind.backend()
        if row.path in GENERATING and (backend is not None or self._generation.ready):
            return await self._generation.answer(request, row)
        return await self._at_once(request, row, backend)

    async def _at_once(self, request: web.Request, row: Passed, backend: Backend | None) -> web.StreamResponse:
        """Answer what waits for no turn."""

        async def onward(raw: bytes | None, other: Backend | None = None) -> web.StreamResponse:
            there = other or backend
            if there is None:
                return await self._own.answer(request, row.path)
            return await self._relay.passed(request, row, there, raw)

        match row.path:
            case "/api/pull":
                return await self._pulls.answer(request, await self._body(request), onward if backend else None)
            case "/api/tags":
                return await self._models.tags(request, backend, onward)
            case "/api/ps":
                return await self._models.ps(request, backend, onward)
            case "/v1/models":
                return await self._models.openai(request, backend, onward)
            case "/api/show":
                return await self._models.show(request, await self._body(request), backend, onward)
            case "/api/delete":
                return await self._models.delete(request, await self._body(request), backend, onward)
            case _:
                return await onward(None)

    async def _body(self, request: web.Request) -> bytes:
        """Read the body of a request that only names a model."""
        return await body_of(request, min(self._max_body, _LARGEST_NAMING))


async def _of_others(request: web.Request) -> tuple[str, ...]:
    """Return the methods of a path below /api or /v1 that is another face's."""
    found = [(await one.resolve(request))[1] for one in request.app.router.resources()]
    return tuple(sorted(method for methods in found for method in methods if method != "*"))


def _reply(request: web.Request, error: MirrorError | web.HTTPNotFound) -> web.Response:
    """Return a foreseen error in the shape of the face that it happened on."""
    match error:
        case web.HTTPNotFound():
            return web.Response(status=404, text=error.text)
        case Refused(status=status):
            pass
        case NotAllowed():
            status = 403
        case BackendDown():
            status = 502
        case OnlyRead():
            status = 409
        case StoreFull():
            status = 507
        case AskedTooOften() | TooManyWaiting():
            status = 429
        case QueueError() | NoTurn() | NowhereToRun():
            status = 503
        case AllDown():
            status = 502
        case UserBlocked():
            status = 403
        case _:
            status = 500
    body = error_body(request.rel_url.path_safe, status, str(error))
    headers = {"Retry-After": _AGAIN_S} if isinstance(error, TooManyWaiting | NoTurn | NowhereToRun) else {}
    return web.json_response(body, status=status, headers=headers, dumps=compact)
