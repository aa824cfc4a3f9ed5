"""``/mirror/v1``: what commands and programs ask of a running mirror."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from mirror.db import Ledger
from mirror.errors import MirrorError
from mirror.fill import Puller, PullProgress
from mirror.store import Problem, Store
from mirror.store.verify import running_verify
from mirror.values import Invalid, ModelName
from mirror.web.problems import Doorkeeper, answering, problem
from mirror.web.views import model_details, models_view

Steps = AsyncIterator[dict[str, Any]]


class BadRequest(Invalid):
    """A body that is not what the route takes."""

    kind = "body"


class AdminFace:
    """Models, pulls and verification. Long work answers with one JSON object a line, as it goes."""

    def __init__(self, store: Store, ledger: Ledger, puller: Puller, doorkeeper: Doorkeeper, host: str) -> None:
        self._store = store
        self._ledger = ledger
        self._puller = puller
        self._doorkeeper = doorkeeper
        self._host = host

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of the admin API; what changes the mirror is guarded."""
        guarding = self._doorkeeper.guarding
        return [
            web.get("/mirror/v1/models", answering(self.models)),
            web.get("/mirror/v1/models/{name:.+}", answering(self.model)),
            web.delete("/mirror/v1/models/{name:.+}", guarding(answering(self.remove))),
            web.post("/mirror/v1/pulls", answering(self.pull)),
            web.post("/mirror/v1/store/verify", guarding(answering(self.verify))),
        ]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """List what is in the store."""
        return web.json_response({"models": await models_view(self._store, self._ledger)})

    async def model(self, request: web.Request) -> web.StreamResponse:
        """Show one model with its blobs."""
        name = ModelName.parse(request.match_info["name"], host=self._host)
        view = await model_details(name, self._store, self._ledger)
        return web.json_response(view) if view else _unknown(name)

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Take a model out of the store."""
        name = ModelName.parse(request.match_info["name"], host=self._host)
        freed = await self._store.remove(name)
        return _unknown(name) if freed is None else web.json_response({"name": name.short, "freed": freed})

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Fetch a model into the store; lines of progress, the last one with ``status`` success or ``error``."""
        name = ModelName.parse(await _name_in(request), host=self._host)
        return await _lines(request, pull_steps(self._puller, name))

    async def verify(self, request: web.Request) -> web.StreamResponse:
        """Check every promise of the tree; lines of progress and of problems, the last one with their number."""
        return await _lines(request, verify_steps(self._store))


@asynccontextmanager
async def pull_steps(puller: Puller, name: ModelName) -> AsyncIterator[Steps]:
    """Pull a model, giving its progress as JSON objects; a failure is the last of them, not an exception.

    Leaving the context before the end gives the pull up; what came of it is kept.
    """
    steps: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def report(progress: PullProgress) -> None:
        steps.put_nowait({"status": "pulling", **_progress_view(progress)})

    async def work() -> None:
        try:
            final = await puller.pull(name, report)
            steps.put_nowait({"status": "success", **_progress_view(final)})
        except (MirrorError, Invalid) as error:
            steps.put_nowait({"status": "error", "name": name.short, "error": str(error)})
        finally:
            steps.put_nowait(None)

    async def in_turn() -> Steps:
        while (step := await steps.get()) is not None:
            yield step

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        try:
            yield in_turn()
        finally:
            task.cancel()


@asynccontextmanager
async def verify_steps(store: Store) -> AsyncIterator[Steps]:
    """Verify the tree, giving progress and problems as JSON objects, and at the end how many problems there are."""

    async def in_turn() -> Steps:
        problems = 0
        async for step in found:
            if isinstance(step, Problem):
                problems += 1
                yield {"problem": step.what, "path": str(step.path)}
            else:
                yield {"done": step.done, "total": step.total}
        yield {"problems": problems}

    async with running_verify(store.layout) as found:
        yield in_turn()


async def _lines(request: web.Request, work: AbstractAsyncContextManager[Steps]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    async with work as steps:
        with suppress(ConnectionError):
            async for step in steps:
                await response.write(json.dumps(step).encode() + b"\n")
            await response.write_eof()
    return response


async def _name_in(request: web.Request) -> str:
    accepted = 'a JSON object {"name": "llama3.2"} with Content-Type application/json'
    try:
        body = json.loads(await request.read()) if request.content_type == "application/json" else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        raise BadRequest((await request.read())[:200].decode("utf-8", "replace"), accepted)
    return str(body["name"])


def _progress_view(progress: PullProgress) -> dict[str, Any]:
    return {
        "name": progress.name.short,
        "completed": progress.done,
        "total": progress.total,
        "fetched": progress.fetched,
    }


def _unknown(name: ModelName) -> web.Response:
    return problem(404, "Not Found", f"{name.short} is not in the store")
