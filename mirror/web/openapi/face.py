"""``GET /mirror/v1/openapi.json``."""

import asyncio
import json
from collections.abc import Iterable
from hashlib import sha256

from aiohttp import web

from mirror.web.openapi.document import document
from mirror.web.openapi.routes import routes_of


class OpenApiFace:
    """Gives away the document of the routes that this mirror has. It is made when it is first asked for."""

    def __init__(self) -> None:
        self._made: tuple[bytes, str] | None = None

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return its one route."""
        return [web.get("/mirror/v1/openapi.json", self.show)]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Return the document; who has it already is told so."""
        if self._made is None:
            self._made = await asyncio.to_thread(_made, request.app)
        body, tag = self._made
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="application/json", headers=headers)


def _made(app: web.Application) -> tuple[bytes, str]:
    body = json.dumps(document(routes_of(app))).encode()
    return body, f'"{sha256(body).hexdigest()[:16]}"'
