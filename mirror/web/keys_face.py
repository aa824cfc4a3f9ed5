"""``/mirror/v1/keys``: keys made, listed and ended on a running mirror. The gate lets admins in only."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from mirror.access import Keys
from mirror.access.desk import Desk
from mirror.config import parse_duration
from mirror.web.admin import dry_run
from mirror.web.problems import answering
from mirror.web.requests import BadRequest, body_of

_KEY = '{"name": "laptop", "scopes": ["pull", "api"], "user": "me", "expires": "30d", "ollama": "ssh-ed25519 AAAA..."}'


class KeysFace:
    """The file of keys by HTTP. A secret is in the one answer that made it, and nowhere else."""

    def __init__(self, desk: Desk, keys: Keys) -> None:
        self._desk = desk
        self._keys = keys

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get("/mirror/v1/keys", answering(self.listed)),
            web.post("/mirror/v1/keys", answering(self.add)),
            web.delete("/mirror/v1/keys/{name}", answering(self.end)),
        ]

    async def listed(self, request: web.Request) -> web.StreamResponse:
        """List the keys, and what needs one."""
        return await self._answer(self._desk.keys)

    async def add(self, request: web.Request) -> web.StreamResponse:
        """Make a key."""
        body = await body_of(request, _KEY, name=str, scopes=list, user=str, expires=(str, int), ollama=str)
        if "name" not in body:
            raise BadRequest("no name", _KEY)
        try:
            lasts_s = parse_duration(body["expires"]) if "expires" in body else None
        except ValueError as error:
            raise BadRequest(str(body["expires"])[:200], f"a time that {error}") from error

        def work() -> dict[str, Any]:
            return self._desk.add(
                body["name"],
                [str(one) for one in body.get("scopes", [])],
                user=body.get("user"),
                lasts_s=lasts_s,
                ollama=body.get("ollama"),
            )

        return await self._answer(work, status=201)

    async def end(self, request: web.Request) -> web.StreamResponse:
        """Revoke a key; with ``?forget=true`` take it out of the file, or with ``dry_run`` too say what that opens."""
        name, forget = request.match_info["name"], request.query.get("forget", "false")
        if forget not in ("true", "false"):
            raise BadRequest(f"forget={forget}", "forget=true or forget=false")
        only_say = dry_run(request)
        if forget == "true":
            return await self._answer(lambda: self._desk.forget(name, dry_run=only_say))
        if only_say:
            raise BadRequest("dry_run", "dry_run together with forget=true")
        return await self._answer(lambda: self._desk.revoke(name))

    async def _answer(self, work: Callable[[], dict[str, Any]], status: int = 200) -> web.Response:
        try:
            view = await asyncio.to_thread(work)
        finally:
            await self._keys.refresh()  # who was told that it is done need not wait for the next look
        return web.json_response(view, status=status, headers={"Cache-Control": "no-store"})
