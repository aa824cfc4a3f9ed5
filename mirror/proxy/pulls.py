"""A pull into the store, told in the lines that Ollama tells its own pulls in (docs/protocol.md §6)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from mirror.access import user_of
from mirror.errors import MirrorError, NotAllowed, NotFoundUpstream, Offline
from mirror.fill import Fills, Puller
from mirror.ollama import Progress
from mirror.proxy.bodies import Refused, compact
from mirror.store import Store
from mirror.values import Descriptor, Digest, Invalid, ModelName

Tell = Callable[[Progress], None]

_MANIFEST = Progress(status="pulling manifest")
_ENDINGS = tuple(Progress(status=one) for one in ("verifying sha256 digest", "writing manifest", "success"))
_MOST_WAITING = 1000
_NOT_THERE = "pull model manifest: file does not exist"


class OwnPulls:
    """Answers POST /api/pull by filling the store. A client that leaves gives its pull up; fills go on as set."""

    def __init__(self, store: Store, fills: Fills, puller: Puller, *, offline: bool) -> None:
        self._store = store
        self._fills = fills
        self._puller = puller
        self._offline = offline

    async def answer(self, request: web.Request, name: ModelName, *, stream: bool) -> web.StreamResponse:
        """Pull a model for the caller: a line for each step, the last one success or an error, or one object."""
        user = user_of(request)
        if not stream:
            try:
                await self.pull(name, user, lambda _: None)
            except NotAllowed:
                raise
            except (MirrorError, Invalid) as error:
                raise Refused(500, _said(error)) from error
            return web.json_response(_ENDINGS[-1].view(), dumps=compact)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"})
        with suppress(ConnectionError):
            await response.prepare(request)
            await self._tell(response, name, user)
            await response.write_eof()
        return response

    async def pull(self, name: ModelName, user: str, tell: Tell) -> None:
        """Pull a model for a user, with each step told. Raises as ``Puller.pull``, and Offline."""
        tell(_MANIFEST)
        steps = _Steps(self._store, self._fills, name, tell)
        if not self._offline:
            await self._puller.pull(name, lambda _: steps.look(), user)
        elif self._store.complete.find(name) or self._store.extra.find_whole(name):
            steps.look()
        else:
            raise Offline(f"{name.short} is not in the store, and the mirror is offline")
        for ending in _ENDINGS:
            tell(ending)

    async def _tell(self, response: web.StreamResponse, name: ModelName, user: str) -> None:
        told: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()

        def tell(step: Progress) -> None:
            if not step.digest or told.qsize() < _MOST_WAITING:  # a client that is slow to read misses some of them
                told.put_nowait(step.view())

        async def pull() -> None:
            try:
                await self.pull(name, user, tell)
            except (MirrorError, Invalid) as error:
                told.put_nowait({"error": _said(error)})
            finally:
                told.put_nowait(None)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(pull())
            try:
                while (line := await told.get()) is not None:
                    await response.write(compact(line).encode() + b"\n")
            except ConnectionError:
                task.cancel()  # and with it the interest of a client that has left


class _Steps:
    """What of a pull's blobs is here, told whenever it is more than before."""

    def __init__(self, store: Store, fills: Fills, name: ModelName, tell: Tell) -> None:
        self._store = store
        self._fills = fills
        self._name = name
        self._tell = tell
        self._here: dict[Digest, int] = {}

    def look(self) -> None:
        """Tell of every blob of which more is here now; the manifest is in the store by then."""
        stored = self._store.find(self._name)
        if stored is None:
            return
        filling = {fill.digest: fill.here for fill in self._fills.in_flight}
        for blob in self._store.expanded(stored):
            if self._here.get(blob.digest) == blob.size:
                continue
            whole = self._store.blobs.size(blob.digest) is not None
            here = blob.size if whole else min(filling.get(blob.digest, 0), blob.size - 1)
            if here > self._here.get(blob.digest, 0) or whole:
                self._here[blob.digest] = here
                self._tell(_of(blob, here))


def _of(blob: Descriptor, here: int) -> Progress:
    short = blob.digest.hex[:12]
    return Progress(status=f"pulling {short}", digest=str(blob.digest), total=blob.size, completed=here)


def _said(error: MirrorError | Invalid) -> str:
    return _NOT_THERE if isinstance(error, NotFoundUpstream) else str(error)
