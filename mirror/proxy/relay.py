"""One request to the Ollama behind us and its answer back, as they come: nothing is gathered on the way."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

from aiohttp import web

from mirror.access import user_of
from mirror.config import ProxySettings
from mirror.fill import Admission
from mirror.ollama import Backend
from mirror.proxy.bodies import Refused, begin, body_of, texts_of
from mirror.proxy.handing import Answer
from mirror.proxy.headers import passed_on
from mirror.proxy.table import Passed
from mirror.values import LARGE_JSON, InvalidModelName

_LARGE = 128 << 10
"""Go reads twice as much of a body that its handler did not want before it resets the connection (net/http)."""


class Relay:
    """Passes requests on. A client that leaves ends the request to the Ollama at once: its handler is cancelled."""

    def __init__(self, settings: ProxySettings, admission: Admission) -> None:
        self._settings = settings
        self._admission = admission

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
        path = path_of(request, row)
        read = await self.vetted(request, row, raw)
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
            return await Answer(backend, answer).hand_on(request)

    async def body(self, request: web.Request, row: Passed) -> bytes:
        """Read a whole body, and ask the policy about the models it names. Raises Refused, NotAllowed."""
        raw = await body_of(request, self._settings.max_body)
        await self.vetted(request, row, raw)
        return raw

    async def vetted(self, request: web.Request, row: Passed, raw: bytes | None) -> bytes | None:
        """Ask the policy about the models a request names; return its body, None where nobody had to read it.

        Raises Refused, NotAllowed.
        """
        if self._admission.empty:
            return raw
        if model := request.match_info.get("model"):
            self._vet(model, request)
        if not row.names:
            return raw
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused(415, "rules on models are set, so the body has to be read: send it without Content-Encoding")
        raw = await body_of(request, self._settings.max_body) if raw is None else raw
        for name in await _named(raw, row):
            self._vet(name, request)
        return raw

    def _vet(self, text: str, request: web.Request) -> None:
        try:
            self._admission.before_named(text, user_of(request))
        except InvalidModelName as error:
            raise Refused(400, "invalid model name") from error


def path_of(request: web.Request, row: Passed) -> str:
    """Return the path and query to ask for. A part that the client chose must stay one part of the path."""
    path = row.path
    if "{" in path:
        path = request.rel_url.raw_path
        chosen = unquote(path.rpartition("/")[2]).replace("\\", "/").split("/")
        if not path.isascii() or not path.isprintable() or {"", ".", ".."} & set(chosen):
            raise web.HTTPNotFound(text="404 page not found")
    query = request.rel_url.raw_query_string
    return f"{path}?{query}" if query and query.isascii() and query.isprintable() else path


async def _named(raw: bytes, row: Passed) -> list[str]:
    """Return the models that a body names. Raises Refused."""
    if len(raw) > LARGE_JSON:
        return await asyncio.to_thread(texts_of, raw, row.names, "request")
    return texts_of(raw, row.names, "request") if raw.strip() else []


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes; it is asked for only once the Ollama is there to take it."""
    await begin(request)
    while chunk := await request.content.readany():
        yield chunk
