"""``/api/queue``, ``/api/health`` and ``/health``: the queue and the mirror's health, as older proxies said them."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from mirror.access import user_of
from mirror.errors import BackendError, MirrorError, NoSuchJob, QueueError, StoreFull
from mirror.fill import Admission, Tags
from mirror.ollama import Behind, Ollama
from mirror.proxy.bodies import Refused, body_of, compact, object_of, text_in
from mirror.pulls import Guards, Job, Queue
from mirror.values import InvalidModelName, ModelName

_FULL = 99.0
_SMALL = 1 << 20


class QueueRoutes:
    """The queue under the first seed's routes, with its names for things.

    ``folder`` is the store's, ``database`` says where the queue is kept.
    """

    def __init__(
        self,
        queue: Queue,
        guards: Guards,
        tags: Tags,
        behind: Behind,
        admission: Admission,
        *,
        host: str,
        folder: Path,
        database: str,
    ) -> None:
        self._queue = queue
        self._guards = guards
        self._tags = tags
        self._behind = behind
        self._admission = admission
        self._host = host
        self._folder = folder
        self._database = database

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes, which come before those of Ollama's API."""
        return [
            web.get("/api/queue", self.show),
            web.delete("/api/queue", self.remove),
            web.get("/api/health", self.health),
            web.get("/health", self.health),
        ]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """List what is queued."""
        user = user_of(request)
        jobs = [job for job in self._queue.jobs if not self._admission.hides(job.name, user)]
        return web.json_response({"queue": [self._row(job) for job in jobs]}, dumps=compact)

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Take a model out of the queue: ``{"name": "llama2:70b"}``."""
        try:
            asked = object_of(await body_of(request, _SMALL), "api.DeleteRequest")
            text = text_in(asked, "name", "model", kind="api.DeleteRequest")
            name = self._tags.filed(ModelName.parse(text, host=self._host))
            job = self._queue.of(name)
            if job is None or self._admission.hides(name, user_of(request)):
                raise NoSuchJob(f"Model {name.short} is not in the download queue")
            await self._queue.cancel(job.id)
        except (MirrorError, InvalidModelName) as error:
            return web.json_response({"error": str(error)}, status=_status(error), dumps=compact)
        said = {"status": "success", "message": f"Model {name.short} removed from download queue"}
        return web.json_response(said, dumps=compact)

    async def health(self, request: web.Request) -> web.StreamResponse:
        """Say how the parts are: healthy, degraded (the disk fills up), or unhealthy with status 503."""
        checks = {
            "proxy": {"status": "ok"},
            "backend": await self._backend(),
            "disk": await asyncio.to_thread(self._disk),
            "database": await self._kept(),
        }
        found = {check["status"] for check in checks.values()}
        status = "unhealthy" if "error" in found else "degraded" if "warning" in found else "healthy"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        body = {"status": status, "checks": checks, "timestamp": now}
        return web.json_response(body, status=503 if status == "unhealthy" else 200, dumps=compact)

    async def _backend(self) -> dict[str, Any]:
        backend = await self._behind.backend()
        if backend is None:
            return {"status": "ok", "url": None}
        try:
            await Ollama(backend).version()
        except BackendError as error:
            return {"status": "error", "url": str(backend.url), "error": str(error)}
        return {"status": "ok", "url": str(backend.url)}

    def _disk(self) -> dict[str, Any]:
        path = str(self._guards.settings.disk_path or self._folder)
        try:
            disk, used = self._guards.disk, self._guards.used
            free_gb = round(disk.free() / 1e9, 1)
        except (StoreFull, OSError) as error:
            return {"status": "error", "path": path, "error": str(error)}
        over = used > self._guards.settings.disk_threshold.percent
        status = "error" if used >= _FULL else "warning" if over else "ok"
        return {"status": status, "path": path, "used_percent": round(used), "free_gb": free_gb}

    async def _kept(self) -> dict[str, Any]:
        try:
            await self._queue.counts()
        except QueueError as error:
            return {"status": "error", "path": self._database, "error": str(error)}
        return {"status": "ok", "path": self._database}

    def _row(self, job: Job) -> dict[str, Any]:
        return {
            "model": job.name.short,
            "status": job.state.value,
            "position": self._queue.position(job),
            "requests": len(job.requesters),
            "requested_by": list(job.requesters),
            "size": job.size,
            "error": job.error,
            "created_at": job.created_at.isoformat(timespec="seconds"),
        }


def _status(error: MirrorError | InvalidModelName) -> int:
    match error:
        case Refused(status=status):
            return status
        case NoSuchJob():
            return 404
        case QueueError():
            return 503
        case _:
            return 400
