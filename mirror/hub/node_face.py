"""What a node answers: jobs of the hub, and the routes of Ollama's API that are run on many machines."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress

import aiohttp
from aiohttp import web

from mirror.errors import BackendDown
from mirror.hub.jobs import LARGEST_JOB, parse_job
from mirror.hub.replies import detailed, detailing, object_of, shows, unknown_caller
from mirror.ollama import Backend, error_body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RELAYED = (
    ("POST", "/api/generate"),
    ("POST", "/api/chat"),
    ("POST", "/api/embed"),
    ("POST", "/api/embeddings"),
    ("GET", "/api/tags"),
    ("GET", "/api/ps"),
    ("POST", "/api/show"),
    ("GET", "/api/version"),
    ("POST", "/api/pull"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/copy"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("GET", "/v1/models"),
)
"""What is handed on to the Ollama, by method and path; nothing else is."""

_LARGEST_REFUSAL = 64 << 10
_LARGE = 128 << 10
"""Go reads twice as much of a body that its handler did not want before it resets the connection (net/http)."""
_ASKED = ("Content-Type", "Content-Length", "Content-Encoding", "Accept", "User-Agent")
_ANSWERED = ("Content-Type", "Content-Length", "Content-Encoding", "Retry-After")
_LINES = ("application/x-ndjson", "text/event-stream")
_LOOP = "the Ollama behind this node is this node: set OLLAMA_BASE_URL to the URL of an Ollama"
_PAGE = "requests of web pages are refused: they go to the hub"


class NodeFace:
    """The application of a node. With a ``token``, all but /healthz needs it; pages of browsers get nothing."""

    def __init__(self, backend: Backend, token: str | None) -> None:
        self._backend = backend
        self._token = token

    def application(self) -> web.Application:
        """Return it."""
        app = web.Application(middlewares=[self._checked])
        app.add_routes(
            [
                web.get("/healthz", self.health),
                web.post("/execute", detailing(self.execute)),
                *(web.route(method, path, self.relay) for method, path in RELAYED),
            ]
        )
        return app

    async def health(self, _: web.Request) -> web.StreamResponse:
        """Say that it runs."""
        return web.json_response({"status": "ok"})

    async def execute(self, request: web.Request) -> web.StreamResponse:
        """Run a job of the hub; the answer is the Ollama's as it comes, an error is one with its status."""
        job = parse_job(await object_of(request, LARGEST_JOB))
        body = json.dumps(job.body()).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        via = ", ".join(request.headers.getall("Via", []))
        async with self._backend.asked("POST", "/api/generate", headers, body, via=via) as answer:
            if answer.status != 200:
                text = await self._text(answer)
                return detailed(answer.status if answer.status >= 400 else 502, text)
            return await self._hand_back(request, answer)

    async def relay(self, request: web.Request) -> web.StreamResponse:
        """Hand a request on to the Ollama, and its answer back, both as they come."""
        path = request.rel_url.path_safe
        headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
        body: bytes | AsyncIterator[bytes] | None = None
        if request.body_exists:
            body = _body(request)
        elif request.method == "POST":
            body = b""
        large = request.body_exists and (request.content_length or _LARGE) >= _LARGE
        via = ", ".join(request.headers.getall("Via", []))
        try:
            async with self._backend.asked(request.method, path, headers, body, via=via, waits=large) as answer:
                return await self._hand_back(request, answer)
        except BackendDown as error:
            return web.json_response(error_body(path, 502, str(error)), status=502)

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.rel_url.path_safe != "/healthz":
            if self._token is not None and not shows(request, self._token):
                return unknown_caller()
            if "Origin" in request.headers:
                return detailed(403, _PAGE)
            if self._backend.leads_back(", ".join(request.headers.getall("Via", []))):
                return detailed(508, _LOOP)
        try:
            return await handler(request)
        except web.HTTPException as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return detailed(error.status, error.reason, headers)

    async def _hand_back(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Send an answer as it comes; where it breaks off the connection is closed before the answer is whole."""
        headers = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
        if headers.get("Content-Type", "").startswith(_LINES):
            headers["X-Accel-Buffering"] = "no"
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        with suppress(ConnectionError):  # the client has left
            await response.prepare(request)
            try:
                async with aclosing(self._backend.chunks(answer)) as chunks:
                    async for chunk in chunks:
                        await response.write(chunk)
            except BackendDown:
                if request.transport is not None:
                    request.transport.close()
                return response
            await response.write_eof()
        return response

    async def _text(self, answer: aiohttp.ClientResponse) -> str:
        """Return what an Ollama says is wrong."""
        raw = bytearray()
        async with aclosing(self._backend.chunks(answer)) as chunks:
            async for chunk in chunks:
                raw += chunk
                if len(raw) > _LARGEST_REFUSAL:
                    break
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads(raw)["error"])
        return raw.decode("utf-8", "replace").strip() or f"{answer.status} {answer.reason}"


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    while chunk := await request.content.readany():
        yield chunk
