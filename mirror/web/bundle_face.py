"""``/mirror/v1/store/export`` and ``import``: models carried by hand from mirror to mirror."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from mirror.access import CALLER
from mirror.access.seals import LOCAL
from mirror.bundles import Bundle, Imported, Report, import_folder, import_tar
from mirror.errors import MirrorError
from mirror.keep import Keeper
from mirror.store import Store
from mirror.values import Digest, ModelName
from mirror.web.problems import answering, problem
from mirror.web.requests import BadRequest, body_of, lines
from mirror.web.steps import Step, Steps, Tell, told

_EXPORT = '{"names": ["llama3.2"], "since": ["sha256:..."], "start": 0}'
_IMPORT = '{"folder": "/home/me/.ollama/models", "names": ["llama3.2"]}'
_CHUNK = 1 << 20
_REST_S = 10.0
_TELL_EVERY = 16 << 20


class BundleFace:
    """Gives models out as one tar, and takes them in from one or from a folder on the mirror's own machine."""

    def __init__(self, store: Store, keeper: Keeper, host: str) -> None:
        self._store = store
        self._keeper = keeper
        self._host = host

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes; both make the mirror work hard, and one changes it."""
        return [
            web.post("/mirror/v1/store/export", answering(self.export)),
            web.post("/mirror/v1/store/import", answering(self.take_in)),
        ]

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Send a bundle, from byte ``start`` on; with ``describe`` say only what would be in it."""
        body = await body_of(request, _EXPORT, names=list, since=list, describe=bool, start=int)
        since = frozenset(map(Digest.parse, _texts(body.get("since", []))))
        bundle = Bundle.of(self._store, self._names(body.get("names", [])), since)
        if body.get("describe", False):
            return web.json_response(bundle.describe())
        start = body.get("start", 0)
        if not 0 <= start < bundle.total:
            raise BadRequest(f"start {start}", f"a byte within the {bundle.total} there are")
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        response.content_length = bundle.total - start
        await response.prepare(request)
        try:
            async with aclosing(bundle.pieces(start)) as pieces:
                async for piece in pieces:
                    await response.write(piece)
            await response.write_eof()
        except (ConnectionError, MirrorError):
            if request.transport is not None:
                request.transport.abort()  # a tar that ends early must not look whole
        return response

    async def take_in(self, request: web.Request) -> web.StreamResponse:
        """Import the tar that is the body, or the folder that it names; all of it or nothing."""
        if request.content_type != "application/x-tar":
            body = await body_of(request, _IMPORT, folder=str, names=list)
            if "folder" not in body:
                raise BadRequest("no folder", f"{_IMPORT}, or a tar with Content-Type application/x-tar")
            if not _is_here(request):
                return problem(403, "Forbidden", "a folder can be imported from the mirror's own machine only")
            names = self._names(body["names"]) if "names" in body else None
            return await lines(request, folder_steps(self._store, self._keeper, _path(body["folder"]), names))
        chunks = request.content.iter_chunked(_CHUNK)
        response = await lines(request, tar_steps(self._store, self._keeper, chunks, request.content_length))
        with suppress(TimeoutError, ConnectionError):  # so that who still sends comes to read why it was refused
            async with asyncio.timeout(_REST_S):
                async for _ in chunks:
                    pass
        return response

    def _names(self, texts: list[Any]) -> list[ModelName]:
        return [ModelName.parse(one, host=self._host) for one in _texts(texts)]


@asynccontextmanager
async def tar_steps(
    store: Store, keeper: Keeper, chunks: AsyncIterator[bytes], size: int | None
) -> AsyncIterator[Steps]:
    """Import a tar: how many of its bytes are read, and at the end what came in."""
    async with _steps(lambda report: import_tar(chunks, store, keeper.promise, report, size=size)) as steps:
        yield steps


@asynccontextmanager
async def folder_steps(
    store: Store, keeper: Keeper, folder: Path, names: Collection[ModelName] | None
) -> AsyncIterator[Steps]:
    """Import from a folder that Ollama keeps: how many bytes are hashed, and at the end what came in."""
    async with _steps(lambda report: import_folder(folder, store, keeper.promise, report, names)) as steps:
        yield steps


@asynccontextmanager
async def _steps(work: Callable[[Report], Awaitable[Imported]]) -> AsyncIterator[Steps]:
    async def run(tell: Tell) -> Step:
        told_at = -_TELL_EVERY

        def report(done: int, total: int | None) -> None:
            nonlocal told_at
            if done - told_at >= _TELL_EVERY or done == total:
                told_at = done
                tell({"done": done, "total": total})

        return imported_view(await work(report))

    async with told(run) as steps:
        yield steps


def imported_view(imported: Imported) -> Step:
    """Return what an import changed."""
    return {
        "status": "success",
        "models": [name.short for name in imported.models],
        "replaced": [name.short for name in imported.replaced],
        "new_blobs": imported.new,
        "new_bytes": imported.new_bytes,
        "blobs_here_before": imported.here,
    }


def _texts(items: list[Any]) -> list[str]:
    if not all(isinstance(one, str) for one in items):
        raise BadRequest(str(items)[:200], "a list of texts")
    return items


def _path(text: str) -> Path:
    """Return the path that a text is. Raises BadRequest for what no file system can have."""
    if "\0" in text or not text.isprintable():  # a lone surrogate is not printable either
        raise BadRequest(text.encode("unicode_escape").decode(), "a path of printable characters")
    return Path(text)


def _is_here(request: web.Request) -> bool:
    caller = request[CALLER]
    return caller.local or caller.key_id == LOCAL
