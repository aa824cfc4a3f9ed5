"""POST /api/pull: queued, done now, or waited for, told in the lines of Ollama's own pulls (docs/protocol.md §6)."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web

from mirror.access import CALLER, RIGHTS, Scope
from mirror.config import PullMode
from mirror.errors import MirrorError, NoSuchJob, NotFoundUpstream, Offline, UpstreamError
from mirror.fill import Admission, Fills, Tags
from mirror.ollama import Progress
from mirror.proxy.bodies import Refused, compact, flag_in, object_of, text_in
from mirror.proxy.marks import named
from mirror.proxy.standing import Standing
from mirror.proxy.steps import Steps
from mirror.pulls import Asked, Deliveries, Job, State, Wish, Wishes, followed
from mirror.store import Store
from mirror.upstream.routes import Routes
from mirror.values import Invalid, ModelName

Tell = Callable[[Progress], None]
Onward = Callable[[bytes], Awaitable[web.StreamResponse]]

MODE = "X-Mirror-Pull"
"""The header in which a client says another mode than that of the settings."""
_MANIFEST = Progress(status="pulling manifest")
_ENDINGS = tuple(Progress(status=one) for one in ("verifying sha256 digest", "writing manifest", "success"))
_MOST_WAITING = 1000
_NOT_THERE = "pull model manifest: file does not exist"
_KIND = "PullRequest"


class Pulls:
    """Turns pulls into wishes. What the store has is delivered at once in every mode, at any hour."""

    def __init__(
        self,
        store: Store,
        tags: Tags,
        admission: Admission,
        wishes: Wishes,
        deliveries: Deliveries,
        fills: Fills,
        standing: Standing,
        routes: Routes,
        *,
        mode: PullMode,
        keeps_filling: bool,
        offline: bool,
    ) -> None:
        self._store = store
        self._tags = tags
        self._admission = admission
        self._wishes = wishes
        self._deliveries = deliveries
        self._fills = fills
        self._standing = standing
        self._routes = routes
        self._mode = mode
        self._keeps_filling = keeps_filling
        self._offline = offline

    async def answer(self, request: web.Request, raw: bytes, onward: Onward | None) -> web.StreamResponse:
        """Answer a pull whose body is ``raw``; what no upstream of ours has goes on to the Ollama behind, if any.

        Raises Refused with Ollama's texts, NotAllowed, QueueError, StoreFull: nothing was queued.
        """
        body = object_of(raw, _KIND)
        flag_in(body, "insecure", default=False, kind=_KIND)  # how to fetch is the mirror's own settings' matter
        stream = flag_in(body, "stream", default=True, kind=_KIND)
        text = text_in(body, "model", "name", kind=_KIND)
        name = named(text, self._tags, self._routes.main, "invalid model name")
        mode = _mode_of(request, self._mode)
        if mode is PullMode.NOW and self._mode is not PullMode.NOW and (no := request[RIGHTS].refusal(Scope.ADMIN)):
            return no
        caller = request[CALLER]
        self._admission.before(name, caller.user)
        if onward is not None and not self._routes.knows(name):
            return await onward(raw)
        try:
            if await self._is_current(name, caller.user):
                return await _told(request, stream, lambda tell: self._hand_over(name, tell))
            asked = await self._want(request, name, mode)
        except (UpstreamError, Offline) as error:
            return await _told(request, stream, _failing(error))
        if mode is PullMode.QUEUE:
            return await self._queued(request, asked, text, stream=stream)
        return await _told(request, stream, lambda tell: self._wait(asked, mode, tell))

    async def _is_current(self, name: ModelName, user: str) -> bool:
        """Say whether the store has the model as it is upstream now, as far as anybody can say.

        Raises UpstreamError, Offline: it is not to be had; NotAllowed.
        """
        whole = self._store.complete.find(name) or self._store.extra.find_whole(name)
        if self._offline and whole is None:
            raise Offline(f"{name.short} is not in the store, and the mirror is offline")
        if self._offline:
            if (manifest := self._deliveries.manifest(name)) is not None:
                await self._admission.after(name, manifest, user)
            return True
        try:
            newest = (await self._tags.by_tag(name)).manifest
        except UpstreamError as error:
            if whole is not None or not error.permanent:
                return whole is not None
            raise
        await self._admission.after(name, newest, user)
        return whole is not None and whole.digest == newest.digest

    async def _want(self, request: web.Request, name: ModelName, mode: PullMode) -> Asked:
        caller = request[CALLER]
        limited = not Scope.ADMIN.within(caller.scopes)
        wish = Wish(name, caller.user, caller.who, at_once=mode is PullMode.NOW, limited=limited)
        asked = await self._wishes.want(wish)
        known = self._store.find(name)
        if known is not None and asked.job.size is None:
            with suppress(NoSuchJob):
                return Asked(await self._wishes.queue.sized(asked.job, known.size), asked.is_new)
        return asked

    async def _queued(self, request: web.Request, asked: Asked, text: str, *, stream: bool) -> web.StreamResponse:
        """Say that it will come. A stream ends with success, for Open WebUI takes any other end for a failure."""
        came = "added to" if asked.is_new else "is in the"
        said = {"status": "queued", "message": f"Model {text} {came} download queue"}
        if self._deliveries.holds(asked.job.name):  # an older one, which serves until then
            with suppress(MirrorError):
                await self._deliveries.deliver(asked.job.name)
        if not stream:
            return web.json_response(said, dumps=compact)
        lines = (said, {"status": self._standing.of(asked.job)}, _ENDINGS[-1].view())
        text = "".join(f"{compact(line)}\n" for line in lines)
        return web.Response(text=text, content_type="application/x-ndjson")

    async def _hand_over(self, name: ModelName, tell: Tell) -> None:
        tell(_MANIFEST)
        Steps(self._store, self._fills, name, tell).look()
        await self._deliveries.deliver(name)
        _end(tell)

    async def _wait(self, asked: Asked, mode: PullMode, tell: Tell) -> None:
        """Tell how a job goes on until it is over. Raises PullFailed."""
        tell(_MANIFEST)
        steps, said = Steps(self._store, self._fills, asked.job.name, tell), self._standing.of(asked.job)
        if mode is PullMode.WAIT:
            tell(Progress(status=said))

        def look(job: Job) -> None:
            nonlocal said
            if job.state is State.DOWNLOADING:
                steps.look()
            elif (standing := self._standing.of(job)) != said:
                tell(Progress(status=standing))
                said = standing

        at_once = mode is PullMode.NOW
        await followed(self._wishes.queue, asked, look, patient=not at_once, stays=self._keeps_filling)
        steps.look()
        _end(tell)


def _mode_of(request: web.Request, usual: PullMode) -> PullMode:
    said = request.headers.get(MODE, usual.value).strip().lower()
    try:
        return PullMode(said)
    except ValueError as error:
        raise Refused(400, f"{MODE} is {said[:20]}; accepted: {', '.join(PullMode)}") from error


def _failing(error: MirrorError) -> Callable[[Tell], Awaitable[None]]:
    async def fail(tell: Tell) -> None:
        tell(_MANIFEST)
        raise error

    return fail


def _end(tell: Tell) -> None:
    for ending in _ENDINGS:
        tell(ending)


async def _told(request: web.Request, stream: bool, work: Callable[[Tell], Awaitable[None]]) -> web.StreamResponse:
    """Answer with what ``work`` tells: a line for each step, the last one success or an error, or one object."""
    if not stream:
        try:
            await work(lambda _: None)
        except (MirrorError, Invalid) as error:
            raise Refused(500, _said(error)) from error
        return web.json_response(_ENDINGS[-1].view(), dumps=compact)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"})
    with suppress(ConnectionError):
        await response.prepare(request)
        await _write(response, work)
        await response.write_eof()
    return response


async def _write(response: web.StreamResponse, work: Callable[[Tell], Awaitable[None]]) -> None:
    told: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()

    def tell(step: Progress) -> None:
        if not step.digest or told.qsize() < _MOST_WAITING:  # a client that is slow to read misses some of them
            told.put_nowait(step.view())

    async def working() -> None:
        try:
            await work(tell)
        except (MirrorError, Invalid) as error:
            told.put_nowait({"error": _said(error)})
        finally:
            told.put_nowait(None)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(working())
        try:
            while (line := await told.get()) is not None:
                await response.write(compact(line).encode() + b"\n")
        except ConnectionError:
            task.cancel()  # and with it the interest of a client that has left


def _said(error: MirrorError | Invalid) -> str:
    return _NOT_THERE if isinstance(error, NotFoundUpstream) else str(error)
