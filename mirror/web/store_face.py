"""``/mirror/v1/store``: what the store holds, and everything that keeps it in order."""

import asyncio
from collections.abc import Iterable

from aiohttp import web

from mirror.config import parse_rate
from mirror.fill import Admission, Repairer
from mirror.keep import Keeper, Scrub
from mirror.store import Store
from mirror.values import NamePattern
from mirror.web.admin import dry_run
from mirror.web.hiding import hidden_from
from mirror.web.problems import answering, problem
from mirror.web.requests import BadRequest, body_of, lines
from mirror.web.steps import gc_steps, repair_steps, scrub_steps, verify_steps
from mirror.web.views import pins_view, usage_view

_PIN = '{"pattern": "qwen3:*"}'


class StoreFace:
    """Limits, pins, tidying up, scrubbing, verifying. What takes long answers with one JSON object a line."""

    def __init__(
        self, store: Store, keeper: Keeper, scrub: Scrub, repairer: Repairer, admission: Admission, host: str
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._scrub = scrub
        self._repairer = repairer
        self._admission = admission
        self._host = host

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes; what changes the store or makes it work hard is for admins (``needs``)."""
        return [
            web.get("/mirror/v1/store", answering(self.usage)),
            web.post("/mirror/v1/store/gc", answering(self.gc)),
            web.post("/mirror/v1/store/scrub", answering(self.scrub)),
            web.post("/mirror/v1/store/repair", answering(self.repair)),
            web.post("/mirror/v1/store/verify", answering(self.verify)),
            web.get("/mirror/v1/store/pins", answering(self.pins)),
            web.post("/mirror/v1/store/pins", answering(self.pin)),
            web.delete("/mirror/v1/store/pins/{pattern:.+}", answering(self.unpin)),
            web.delete("/mirror/cache", answering(self.clear)),
        ]

    async def usage(self, request: web.Request) -> web.StreamResponse:
        """Say what the store takes, of what it may."""
        hidden = hidden_from(request, self._admission)
        return web.json_response(await usage_view(self._store, self._keeper, self._scrub, hidden))

    async def gc(self, request: web.Request) -> web.StreamResponse:
        """Remove what has to go, or with ``dry_run`` say what would."""
        body = await body_of(request, '{"dry_run": true}', dry_run=bool)
        return await lines(request, gc_steps(self._keeper, dry_run=body.get("dry_run", False)))

    async def clear(self, request: web.Request) -> web.StreamResponse:
        """Remove everything that is not pinned or in use (the first seed's route). Answers when it is done."""
        async with gc_steps(self._keeper, dry_run=dry_run(request), everything=True) as steps:
            done = [step async for step in steps]
        if "error" in done[-1]:
            return problem(507, "Insufficient Storage", done[-1]["error"])
        return web.json_response({"status": "success", **done[-1]})

    async def scrub(self, request: web.Request) -> web.StreamResponse:
        """Hash every blob again, at most at ``rate``, and fetch again what is damaged unless ``repair`` is false."""
        body = await body_of(request, '{"rate": "50MB/s", "repair": true}', rate=(str, int), repair=bool)
        try:
            rate = parse_rate(body["rate"]) if "rate" in body else None
        except ValueError as error:
            raise BadRequest(str(body["rate"]), f"a rate that {error}") from error
        if rate == 0:
            raise BadRequest("0", "a rate above 0")
        return await lines(request, scrub_steps(self._scrub, self._repairer, rate, repair=body.get("repair", True)))

    async def repair(self, request: web.Request) -> web.StreamResponse:
        """Fetch again what damaged models lack."""
        return await lines(request, repair_steps(self._repairer))

    async def verify(self, request: web.Request) -> web.StreamResponse:
        """Check every promise of the tree; lines of progress and of problems, the last one with their number."""
        return await lines(request, verify_steps(self._store))

    async def pins(self, request: web.Request) -> web.StreamResponse:
        """List the patterns that pin models."""
        return web.json_response(pins_view(self._keeper.pins, self._store, hidden_from(request, self._admission)))

    async def pin(self, request: web.Request) -> web.StreamResponse:
        """Pin the models that a pattern matches, now and later."""
        body = await body_of(request, _PIN, pattern=str)
        if "pattern" not in body:
            raise BadRequest("no pattern", _PIN)
        pattern = NamePattern.parse(body["pattern"], host=self._host)
        await asyncio.to_thread(self._keeper.pins.add, pattern)
        return web.json_response(pins_view(self._keeper.pins, self._store))

    async def unpin(self, request: web.Request) -> web.StreamResponse:
        """Take back a pin."""
        pattern = NamePattern.parse(request.match_info["pattern"], host=self._host)
        if not await asyncio.to_thread(self._keeper.pins.remove, pattern):
            fixed = pattern in self._keeper.pins.of_settings
            where = "it is in the settings (cache.pinned)" if fixed else "nobody set one in these words"
            return problem(404, "Not Found", f"there is no pin {pattern} to take back: {where}")
        return web.json_response(pins_view(self._keeper.pins, self._store))
