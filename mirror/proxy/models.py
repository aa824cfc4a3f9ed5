"""/api/tags, /api/show and /api/delete: what the Ollama behind the mirror has, what is queued, and what is stored."""

import json
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol

from aiohttp import web

from mirror.access import RIGHTS, Scope, is_handed, user_of
from mirror.dispatch import Pool, model_key
from mirror.errors import BackendError, BackendRefused, NoSuchJob
from mirror.fill import Admission, Tags
from mirror.ollama import Backend, Ollama
from mirror.proxy.bodies import Refused, compact, object_of, text_in
from mirror.proxy.marks import QUEUED, STORED, named, unmarked
from mirror.proxy.merged import having, is_merged, merged_loaded, merged_models
from mirror.proxy.own import OwnAnswers, Row, rfc3339
from mirror.proxy.standing import Standing
from mirror.pulls import Job, Queue
from mirror.store import Store
from mirror.values import InvalidModelName, ModelName


class Onward(Protocol):
    """Passes a request on to ``other``, else to the Ollama behind the mirror, else to the store."""

    async def __call__(self, raw: bytes | None, other: Backend | None = None) -> web.StreamResponse:
        """Return the answer; ``raw`` is the body where it has been read."""


_NO_DETAILS = {
    "parent_model": "",
    "format": "",
    "family": "",
    "families": None,
    "parameter_size": "",
    "quantization_level": "",
}


class Models:
    """The models as clients see them. What is not the Ollama's yet has a mark before its name (``marks``)."""

    def __init__(
        self,
        store: Store,
        own: OwnAnswers,
        admission: Admission,
        tags: Tags,
        queue: Queue,
        standing: Standing,
        pool: Pool,
        *,
        host: str,
        show_stored: bool,
    ) -> None:
        self._store = store
        self._own = own
        self._admission = admission
        self._tags = tags
        self._queue = queue
        self._standing = standing
        self._pool = pool
        self._host = host
        self._show_stored = show_stored

    async def tags(self, request: web.Request, backend: Backend | None, onward: Onward) -> web.StreamResponse:
        """List models. What the policy refuses to the caller by its name is left out, whoever has it."""
        user = user_of(request)
        several = is_merged(self._pool)
        if backend is None and not several:
            return _listing({"models": [*await self._own.rows(user), *self._queued(user)]})
        if not several and self._admission.empty and not self._queue.jobs and not self._show_stored:
            return await onward(None)
        listed = {"models": await merged_models(self._pool)} if backend is None or several else await _listed(backend)
        rows = [row for row in listed.get("models") or () if isinstance(row, dict)]
        theirs = [row for row in rows if not self._hides(row, user)]
        stored = await self._stored(theirs, user) if self._show_stored else []
        return _listing({**listed, "models": [*theirs, *stored, *self._queued(user)]})

    async def ps(self, request: web.Request, backend: Backend | None, onward: Onward) -> web.StreamResponse:
        """List what is loaded; of several Ollamas each row says on which."""
        several = is_merged(self._pool)
        if not several and (backend is None or self._admission.empty):
            return await onward(None)
        loaded = await merged_loaded(self._pool) if several or backend is None else await _loaded(backend)
        return _listing({"models": [row for row in loaded if not self._hides(row, user_of(request))]})

    async def openai(self, request: web.Request, backend: Backend | None, onward: Onward) -> web.StreamResponse:
        """List models as OpenAI does (openai/openai.go, ToListCompletion)."""
        several = is_merged(self._pool)
        if not several and (backend is None or self._admission.empty):
            return await onward(None)
        rows = await merged_models(self._pool) if several or backend is None else (await _listed(backend)).get("models")
        seen = [row for row in rows or () if isinstance(row, dict) and not self._hides(row, user_of(request))]
        return _listing({"object": "list", "data": [_openai(row) for row in seen] or None})

    async def show(
        self, request: web.Request, raw: bytes, backend: Backend | None, onward: Onward
    ) -> web.StreamResponse:
        """Show a model. Of one that is queued it says when it will be there, which is no model to ``ollama run``."""
        text = text_in(object_of(raw, "ShowRequest"), "model", "name", kind="ShowRequest")
        name = self._meant(text)
        job = self._queue.of(name) if name is not None else None
        if name is not None and job is not None:
            self._admission.before(name, user_of(request))
            if text.startswith(QUEUED):
                return web.json_response(self._shown(job), dumps=compact)
            if not await self._has(name, backend):
                raise Refused(404, f"model '{name.short}' not found: {self._standing.of(job)}")
        having_it = having(self._pool, name.short) if name is not None else []
        if text.startswith(STORED) or (backend is None and not having_it):
            return await self._own.show(request, raw)
        body = raw if name is None else _about(raw, text, name)
        return await onward(body, having_it[0].backend if having_it else None)

    async def delete(
        self, request: web.Request, raw: bytes, backend: Backend | None, onward: Onward
    ) -> web.StreamResponse:
        """Delete a model, which is for admins, or take one out of the queue, which is for everybody."""
        text = text_in(object_of(raw, "DeleteRequest"), "model", "name", kind="DeleteRequest")
        name = self._meant(text)
        job = self._queue.of(name) if name is not None else None
        if name is not None and job is not None and (text.startswith(QUEUED) or not await self._has(name, backend)):
            self._admission.before(name, user_of(request))
            await self._queue.cancel(job.id)
            return web.Response()
        if (no := request[RIGHTS].refusal(Scope.ADMIN)) is not None:
            return no
        if job is not None:
            with suppress(NoSuchJob):
                await self._queue.cancel(job.id)  # else it would be there again tomorrow
        having_it = having(self._pool, name.short) if name is not None else []
        if text.startswith(STORED) or (backend is None and not having_it):
            return await self._own.delete(request, raw)
        body = raw if name is None else _about(raw, text, name)
        for member in having_it:
            self._pool.lacks(member, model_key(text))
        for member in having_it[1:]:
            with suppress(BackendError):
                await Ollama(member.backend).delete(unmarked(text))
        return await onward(body, having_it[0].backend if having_it else None)

    def _meant(self, text: str) -> ModelName | None:
        """Return the model that is meant; None for what is no name, of which the face's own words are said later."""
        with suppress(Refused):
            return named(text, self._tags, self._host, "") if text else None
        return None

    async def _has(self, name: ModelName, backend: Backend | None) -> bool:
        if is_merged(self._pool):
            return bool(having(self._pool, name.short))
        if backend is None:
            return self._own.whole(name) is not None
        try:
            await Ollama(backend).show(name.short)
        except BackendRefused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def _hides(self, row: Row, user: str) -> bool:
        with suppress(InvalidModelName):
            name = ModelName.parse(str(row.get("model") or row.get("name") or ""), host=self._host)
            return is_handed(name) or self._admission.hides(self._tags.filed(name), user)
        return False

    def _queued(self, user: str) -> list[Row]:
        jobs = [job for job in self._queue.jobs if not self._admission.hides(job.name, user)]
        return [self._row(job) for job in jobs]

    def _row(self, job: Job) -> Row:
        """Return a row that every client can read: a digest of 64 letters, sizes, details (docs/protocol.md §6)."""
        marked, known = f"{QUEUED}{job.name.short}", self._store.find(job.name)
        return {
            "name": marked,
            "model": marked,
            "modified_at": rfc3339(job.created_at),
            "size": job.size or 0,
            "digest": known.digest.hex if known is not None else sha256(str(job.name).encode()).hexdigest(),
            "details": _NO_DETAILS,
        }

    async def _stored(self, theirs: list[Row], user: str) -> list[Row]:
        """Return rows of what only the store has; a pull of one brings it to the Ollama at once."""
        there = {str(row.get("model") or row.get("name")).lower() for row in theirs}
        rows = [row for row in await self._own.rows(user) if row["model"].lower() not in there]
        return [{**row, "name": f"{STORED}{row['name']}", "model": f"{STORED}{row['model']}"} for row in rows]

    def _shown(self, job: Job) -> dict[str, Any]:
        said = f"{job.name.short} is {self._standing.of(job)}"
        asked = f"asked for {job.created_at:%Y-%m-%d %H:%M} UTC by {', '.join(job.requesters)}"
        return {
            "modelfile": f"# {said}\n# {asked}\n",
            "system": said,
            "template": "",
            "details": _NO_DETAILS,
            "model_info": {"general.architecture": "queued", "general.size_label": str(job.size or "")},
            "modified_at": rfc3339(job.created_at),
        }


def _about(raw: bytes, text: str, name: ModelName) -> bytes:
    """Return a body with the plain name in place of one with a mark."""
    if unmarked(text) == text:
        return raw
    said = {key: value for key, value in object_of(raw, "request").items() if key not in ("model", "name")}
    return json.dumps({**said, "model": name.short}).encode()


async def _listed(backend: Backend) -> dict[str, Any]:
    return await Ollama(backend).listed()


async def _loaded(backend: Backend) -> list[Row]:
    rows = (await Ollama(backend).loaded()).get("models") or []
    return [row for row in rows if isinstance(row, dict)]


def _openai(row: Row) -> Row:
    name, created = str(row.get("model") or row.get("name") or ""), 0
    with suppress(ValueError):
        created = int(datetime.fromisoformat(str(row.get("modified_at"))).timestamp())
    owner = name.rpartition("/")[0].rpartition("/")[2] or "library"
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def _listing(said: dict[str, Any]) -> web.Response:
    return web.json_response(said, dumps=compact)
