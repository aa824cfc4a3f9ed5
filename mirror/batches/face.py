"""``/v1/files`` and ``/v1/batches``, as OpenAI has them."""

from collections.abc import Iterable
from contextlib import suppress

import aiohttp
from aiohttp import web
from aiohttp.http import HttpProcessingError

from mirror.access import user_of
from mirror.batches.batch import (
    OUTPUT,
    PURPOSE,
    Batch,
    BatchFile,
    InvalidBatch,
    NoSuchBatch,
    NoSuchFile,
    TooLarge,
    parse_batch,
)
from mirror.batches.batches import Batches
from mirror.batches.files import Draft, Files
from mirror.batches.views import answering, batch_view, file_view, list_view, object_in, page_in
from mirror.batches.worker import Worker
from mirror.config import Run
from mirror.prompts import Lines, PromptsUnusable, Sight
from mirror.prompts import Worker as PromptWorker

_PIECE = 1 << 18
_LONGEST_FIELD, _LONGEST_NAME, _MOST_PARTS = 1024, 255, 16
_FORM = "multipart/form-data with a file, and the purpose batch"


class BatchFace:
    """The routes of files and batches. Who may use them the gate decides, and what they see ``sight``."""

    def __init__(
        self,
        files: Files,
        batches: Batches,
        lines: Lines,
        worker: Worker,
        prompts: PromptWorker,
        sight: Sight,
        run: Run,
    ) -> None:
        """``run`` is when lines are begun of batches that do not say it."""
        self._files = files
        self._batches = batches
        self._lines = lines
        self._worker = worker
        self._prompts = prompts
        self._sight = sight
        self._run = run

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes, which have to come before those of an Ollama."""
        return [
            web.post("/v1/files", answering(self.upload)),
            web.get("/v1/files", answering(self.files)),
            web.get("/v1/files/{id}", answering(self.file)),
            web.get("/v1/files/{id}/content", answering(self.content)),
            web.delete("/v1/files/{id}", answering(self.remove)),
            web.post("/v1/batches", answering(self.create)),
            web.get("/v1/batches", answering(self.batches)),
            web.get("/v1/batches/{id}", answering(self.batch)),
            web.post("/v1/batches/{id}/cancel", answering(self.cancel)),
        ]

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Take a file, of which a piece is in memory at a time."""
        if not request.content_type.startswith("multipart/"):
            raise InvalidBatch(request.content_type[:100], _FORM)
        try:
            async with self._files.draft(bounded=True) as draft:
                said = await _form(request, draft)
                if (purpose := said.get("purpose", "")) != PURPOSE:
                    raise InvalidBatch(purpose[:100], f"purpose: {PURPOSE}")
                if "file" not in said:
                    raise InvalidBatch("nothing", _FORM)
                if draft.blank:
                    raise InvalidBatch("nothing", "file: one line or more of JSON")
                file = await self._files.keep(draft, self._sight.user(request), said["file"], PURPOSE)
        except OSError as error:
            raise PromptsUnusable(f"the file cannot be kept: {error.strerror or error}") from error
        return web.json_response(file_view(file))

    async def files(self, request: web.Request) -> web.StreamResponse:
        """Show a page of the files."""
        purpose = request.query.get("purpose") or None
        found, more = await self._files.page(page_in(request, files=True), self._sight.owner(request), purpose)
        return web.json_response(list_view([file_view(one) for one in found], more=more))

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Show a file."""
        return web.json_response(file_view(await self._found_file(request, request.match_info["id"])))

    async def content(self, request: web.Request) -> web.StreamResponse:
        """Send what is in a file."""
        file = await self._found_file(request, request.match_info["id"])
        path = self._files.path(file.id)
        if not await self._files.in_thread(path.is_file):
            raise NoSuchFile(file.id)
        return web.FileResponse(path, headers={"Content-Type": "application/jsonl"})

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Delete a file, unless a batch has still to read it."""
        file = await self._found_file(request, request.match_info["id"])
        async with self._files.in_use:
            if any(one.wanted.input_file == file.id for one in self._batches.under_way):
                raise InvalidBatch(file.id, "a file that no batch under way reads")
            await self._files.remove([file])
        return web.json_response({"id": file.id, "object": "file", "deleted": True})

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Begin a batch."""
        wanted = parse_batch(await object_in(request), self._run)
        if wanted.run is Run.WINDOW and not self._prompts.ever_opens:
            raise InvalidBatch(Run.WINDOW, "run: now or idle, as there are no windows (prompts.windows)")
        async with self._files.in_use:
            file = await self._found_file(request, wanted.input_file)
            if file.purpose == OUTPUT:
                raise InvalidBatch(file.id, f"input_file_id: a file of the purpose {PURPOSE}")
            batch = await self._batches.ask(wanted, self._sight.user(request), user_of(request))
        return web.json_response(await self._view(batch))

    async def batches(self, request: web.Request) -> web.StreamResponse:
        """Show a page of the batches."""
        found, more = await self._batches.page(page_in(request, files=False), self._sight.owner(request))
        return web.json_response(list_view([await self._view(one) for one in found], more=more))

    async def batch(self, request: web.Request) -> web.StreamResponse:
        """Say how far a batch is."""
        return web.json_response(await self._view(await self._found(request)))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Have no more lines of a batch begun."""
        batch = await self._found(request)
        if batch.state.over:
            raise InvalidBatch(batch.state, "a batch that is under way")
        with suppress(NoSuchBatch):  # it has come to an end in this moment: that is what the answer says
            await self._worker.cancel(batch)
        return web.json_response(await self._view(await self._found(request)))

    async def _view(self, batch: Batch) -> dict[str, object]:
        counts = batch.completed, batch.failed
        return batch_view(batch, *(counts if batch.state.over else await self._lines.counts(batch.id)))

    async def _found(self, request: web.Request) -> Batch:
        id_ = request.match_info["id"]
        batch = await self._batches.find(id_)
        if batch is None or not self._sight.sees(request, batch.user):
            raise NoSuchBatch(id_)
        return batch

    async def _found_file(self, request: web.Request, id_: str) -> BatchFile:
        file = await self._files.find(id_)
        if file is None or not self._sight.sees(request, file.user):
            raise NoSuchFile(id_)
        return file


async def _form(request: web.Request, draft: Draft) -> dict[str, str]:
    """Read a form: the file goes into the draft, and is called by its name. Raises InvalidBatch, TooLarge."""
    said: dict[str, str] = {}
    try:
        async for part in await request.multipart():
            if not isinstance(part, aiohttp.BodyPartReader) or len(said) >= _MOST_PARTS:
                raise InvalidBatch("too many parts", _FORM)
            if (part.name or "") in said:
                raise InvalidBatch(str(part.name)[:100], "each field once")
            if part.name == "file":
                name = part.filename or ""
                said["file"] = name[:_LONGEST_NAME] if name.isprintable() and name else "file.jsonl"
                while chunk := await part.read_chunk(_PIECE):
                    await draft.write(bytes(chunk))
            else:
                said[part.name or ""] = await _field(part)
    except (ValueError, LookupError, HttpProcessingError) as error:
        raise InvalidBatch(str(error)[:100], _FORM) from error
    return said


async def _field(part: aiohttp.BodyPartReader) -> str:
    raw = bytearray()
    while chunk := await part.read_chunk(_LONGEST_FIELD):
        raw += chunk
        if len(raw) > _LONGEST_FIELD:
            raise TooLarge(f"a field of the form has more than {_LONGEST_FIELD} bytes")
    return raw.decode("utf-8", "replace")
