"""Home, statistics, health, metrics: everything that only looks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from mirror import __version__
from mirror.config import Settings
from mirror.db import Ledger
from mirror.fill import Admission, Fills
from mirror.store import Pins, Store
from mirror.upstream import Upstream
from mirror.web.hiding import hidden_from
from mirror.web.metrics import Metrics
from mirror.web.views import fill_view, models_view

_ASK_AGAIN_S = 15.0


Page = Callable[[web.Request], Awaitable[web.StreamResponse]]
StatsPage = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class StatusFace:
    """Answers about the mirror itself. Nothing here changes anything.

    Browsers get ``home_page`` and ``stats_page`` where there are pages.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        pins: Pins,
        fills: Fills,
        ledger: Ledger,
        upstream: Upstream,
        metrics: Metrics,
        admission: Admission,
        home_page: Page | None,
        stats_page: StatsPage | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._pins = pins
        self._fills = fills
        self._ledger = ledger
        self._upstream = upstream
        self._metrics = metrics
        self._admission = admission
        self._home_page = home_page
        self._stats_page = stats_page
        self._started = time.monotonic()
        self._asked_at = float("-inf")
        self._answered = False

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of this face, those the settings switch off left out."""
        routes = [
            web.get("/", self.home),
            web.get("/mirror/stats", self.stats),
            web.get("/mirror/health", self.health),
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
        ]
        return [*routes, web.get("/metrics", self.metrics)] if self._settings.features.enable_metrics else routes

    async def home(self, request: web.Request) -> web.StreamResponse:
        """Answer by Accept: a page for browsers, JSON for programs, else the text Ollama's clients probe for."""
        accept = request.headers.get("Accept", "")
        if "text/html" in accept and self._home_page is not None:
            return await self._home_page(request)
        if "application/json" in accept:
            return web.json_response(
                {
                    "name": "mirror",
                    "version": __version__,
                    "status": "running",
                    "upstream_url": self._settings.upstream.url,
                    "cached_models": len(self._store.complete),
                    "uptime_s": round(time.monotonic() - self._started),
                }
            )
        return web.Response(text="Ollama is running")

    async def stats(self, request: web.Request) -> web.StreamResponse:
        """Answer by Accept: a page for browsers, else JSON."""
        view = await self._stats(request)
        if "text/html" in request.headers.get("Accept", "") and self._stats_page is not None:
            return await self._stats_page(request, view)
        return web.json_response(view)

    async def health(self, request: web.Request) -> web.StreamResponse:
        """Say how the parts are: healthy, degraded (the store serves, the upstream is away), unhealthy (503)."""
        problem = await asyncio.to_thread(self._store.problem)
        upstream = "offline" if self._settings.offline else "ok" if await self._upstream_answers() else "unreachable"
        status = "unhealthy" if problem else "healthy" if upstream != "unreachable" else "degraded"
        checks = {
            "store": {"status": "error" if problem else "ok", "path": str(self._store.layout.root), "problem": problem},
            "upstream": {"status": upstream, "url": self._settings.upstream.url},
        }
        body = {
            "status": status,
            "version": __version__,
            "checks": checks,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return web.json_response(body, status=503 if problem else 200)

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The process answers."""
        return web.Response(text="ok")

    async def ready(self, request: web.Request) -> web.StreamResponse:
        """The store can be read and written, so clients may be sent here."""
        problem = await asyncio.to_thread(self._store.problem)
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Return the metrics in Prometheus' text format."""
        body = self._metrics.text(await self._blob_sizes())
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _stats(self, request: web.Request) -> dict[str, Any]:
        """The keys of the first seed as they were, and what came since, as far as the caller may know."""
        hidden = hidden_from(request, self._admission)
        every = await models_view(self._store, self._ledger, self._pins, hidden)
        models = [one for one in every if one["complete"] and one["from"] is None]
        traffic = self._ledger.total
        return {
            "cached_models": len(models),
            "total_cache_size": sum(await self._blob_sizes()),
            "cache_directory": str(self._store.layout.root),
            "upstream_url": self._settings.upstream.url,
            "models": [{"name": one["name"], "cached_at": one["stored_at"], "size": one["size"]} for one in models],
            "hits": traffic.hits,
            "misses": traffic.misses,
            "bytes_served": traffic.served_bytes,
            "bytes_fetched": traffic.fetched_bytes,
            "bytes_saved": traffic.saved_bytes,
            "fills": [fill_view(fill, self._store, hidden) for fill in self._fills.in_flight],
        }

    async def _blob_sizes(self) -> list[int]:
        return await asyncio.to_thread(lambda: [size for _, size in self._store.blobs])

    async def _upstream_answers(self) -> bool:
        """Ask at most once in a while, however often we are asked."""
        if time.monotonic() - self._asked_at > _ASK_AGAIN_S:
            self._asked_at = time.monotonic()
            self._answered = await self._upstream.answers()
        return self._answered
