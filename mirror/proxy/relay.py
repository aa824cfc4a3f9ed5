"""One request to the Ollama behind us and its answer back, as they come: nothing is gathered on the way."""

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from mirror.access import user_of
from mirror.config import ProxySettings
from mirror.errors import BackendDown
from mirror.fill import Admission, Tags
from mirror.ollama import Backend
from mirror.proxy.bodies import Refused, begin, body_of, compact, texts_of
from mirror.proxy.headers import handed_back, passed_on
from mirror.proxy.table import Passed
from mirror.values import InvalidModelName, ModelName

_LINES = "application/x-ndjson"
_LARGE = 128 << 10
"""Go reads twice as much of a body that its handler did not want before it resets the connection (net/http)."""


class Relay:
    """Passes requests on. A client that leaves ends the request to the Ollama at once: its handler is cancelled."""

    def __init__(self, settings: ProxySettings, admission: Admission, tags: Tags, host: str) -> None:
        self._settings = settings
        self._admission = admission
        self._tags = tags
        self._host = host

    async def passed(
        self, request: web.Request, row: Passed, backend: Backend, raw: bytes | None = None
    ) -> web.StreamResponse:
        """Return the answer of ``backend``, all of it sent.

        Where rules on models are set, a body that may name one is read first; else it is streamed. ``raw`` is the body
        where it has been read already.

        Raises:
            BackendDown: it does not answer; nothing has been sent to the client.
            Refused, NotAllowed: it is not asked at all.
        """
        path = _path(request, row)
        read = await self._vetted(request, row, raw)
        headers = passed_on(request.headers, request.remote or "unknown")
        body: bytes | AsyncIterator[bytes] | None = read
        if read is not None:
            headers["Content-Length"] = str(len(read))
        elif request.body_exists:
            body = _body(request)
        elif request.method in ("POST", "PUT", "PATCH"):
            body = b""
        via = ", ".join(request.headers.getall("Via", []))
        large = read is None and request.body_exists and (request.content_length or _LARGE) >= _LARGE
        async with backend.asked(request.method, path, headers, body, via=via, waits=large) as answer:
            return await _hand_back(request, backend, answer)

    async def _vetted(self, request: web.Request, row: Passed, raw: bytes | None) -> bytes | None:
        """Ask the policy about the models a request names; return its body, None where nobody had to read it."""
        if self._admission.empty:
            return raw
        if model := request.match_info.get("model"):
            self._vet(model, request)
        if not row.names:
            return raw
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused(415, "rules on models are set, so the body has to be read: send it without Content-Encoding")
        raw = await body_of(request, self._settings.max_body) if raw is None else raw
        for name in texts_of(raw, row.names, "request") if raw.strip() else ():
            self._vet(name, request)
        return raw

    def _vet(self, text: str, request: web.Request) -> None:
        try:
            name = ModelName.parse(text, host=self._host)
        except InvalidModelName as error:
            raise Refused(400, "invalid model name") from error
        # m:local means m:latest, but only as one that is here (Ollama's internal/modelref).
        for meant in (name, name.with_tag("latest")) if name.tag.lower() == "local" else (name,):
            self._admission.before(self._tags.filed(meant), user_of(request))


def _path(request: web.Request, row: Passed) -> str:
    """Return the path and query to ask for. A part that the client chose must stay one part of the path."""
    path = row.path
    if "{" in path:
        path = request.rel_url.raw_path
        chosen = unquote(path.rpartition("/")[2]).replace("\\", "/").split("/")
        if not path.isascii() or not path.isprintable() or {"", ".", ".."} & set(chosen):
            raise web.HTTPNotFound(text="404 page not found")
    query = request.rel_url.raw_query_string
    return f"{path}?{query}" if query and query.isascii() and query.isprintable() else path


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes; it is asked for only once the Ollama is there to take it."""
    await begin(request)
    while chunk := await request.content.readany():
        yield chunk


async def _hand_back(request: web.Request, backend: Backend, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=handed_back(answer.headers))
    last = b"\n"
    with suppress(ConnectionError):  # the client has left
        await response.prepare(request)
        try:
            async with aclosing(backend.chunks(answer)) as chunks:
                async for chunk in chunks:
                    await response.write(chunk)
                    last = chunk[-1:]
        except BackendDown as error:
            if answer.content_type != _LINES or last != b"\n" or "Content-Length" in answer.headers:
                _cut(request)
                return response
            await response.write(compact({"error": str(error)}).encode() + b"\n")
        await response.write_eof()
    return response


def _cut(request: web.Request) -> None:
    """End the connection so that half an answer cannot be taken for a whole one."""
    if request.transport is not None:
        request.transport.abort()
