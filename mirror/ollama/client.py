"""Ollama's API as the mirror itself asks it (docs/protocol.md §6; Ollama's api/client.go and server/routes.go)."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from mirror.errors import BackendError, BackendRefused
from mirror.ollama.answers import ListedModel, Progress, RunningModel
from mirror.ollama.backend import Backend, Body
from mirror.ollama.lines import lines_of
from mirror.values import Digest

T = TypeVar("T")
Said = dict[str, Any]

_LARGEST_ANSWER = 64 << 20
_LARGEST_REFUSAL = 64 << 10


class Ollama:
    """A client of one Ollama. Any number of tasks may use it at once; a task that is cancelled ends its request.

    Every method raises BackendDown where there is no connection or it ends early, BackendRefused with Ollama's own
    status and text where it answers with an error, and BackendError where the answer is none of its API's. Names are
    Ollama's, as its users type them.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def version(self) -> str:
        """Return its version, such as 0.33.0 (server/routes.go, GET /api/version)."""
        return str((await self._said("GET", "/api/version")).get("version", ""))

    async def models(self) -> list[ListedModel]:
        """Return what it holds, the newest first (server/routes.go, ListHandler)."""
        return _rows(await self.listed(), ListedModel.parse)

    async def listed(self) -> Said:
        """Return the same as it says it, with all that clients of other versions may look for."""
        return await self._said("GET", "/api/tags")

    async def running(self) -> list[RunningModel]:
        """Return what it has loaded (server/routes.go, PsHandler)."""
        return _rows(await self.loaded(), RunningModel.parse)

    async def loaded(self) -> Said:
        """Return the same as it says it."""
        return await self._said("GET", "/api/ps")

    async def show(self, name: str, *, verbose: bool = False) -> Said:
        """Return what it says of one model (server/routes.go, ShowHandler); BackendRefused 404 where it has none."""
        return await self._said("POST", "/api/show", {"model": name, "verbose": verbose})

    @asynccontextmanager
    async def pull(self, name: str, *, insecure: bool = False) -> AsyncIterator[AsyncIterator[Progress]]:
        """Have it pull a model; yields the lines of progress, whose end without an error is success.

        ``insecure``: by plain HTTP (server/images.go, PullModel). Leaving the context early gives the pull up; what
        was fetched until then it keeps, for a while (docs/protocol.md §2).
        """

        async def progress(found: AsyncIterator[Said]) -> AsyncGenerator[Progress, None]:
            async for line in found:
                yield _understood(Progress.parse, line)

        lines = self._lines("/api/pull", {"model": name, "insecure": insecure})
        async with lines as found, aclosing(progress(found)) as steps:
            yield steps

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name; no blob is copied (server/routes.go, CopyHandler)."""
        await self._done("POST", "/api/copy", _json({"source": source, "destination": destination}))

    async def delete(self, name: str) -> None:
        """Delete a name, and the blobs that no other needs (server/routes.go, DeleteHandler)."""
        await self._done("DELETE", "/api/delete", _json({"model": name}))

    def generate(self, request: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[Said]]:
        """Yield the lines of an answer to a prompt; the last has ``done`` (server/routes.go, GenerateHandler)."""
        return self._lines("/api/generate", {**request, "stream": True})

    def chat(self, request: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[Said]]:
        """Yield the lines of an answer to messages; the last has ``done`` (server/routes.go, ChatHandler)."""
        return self._lines("/api/chat", {**request, "stream": True})

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector for each text (server/routes.go, EmbedHandler)."""
        said = await self._said("POST", "/api/embed", {"model": model, "input": list(texts)})
        return _understood(lambda one: [[float(value) for value in vector] for vector in one["embeddings"]], said)

    async def has_blob(self, digest: Digest) -> bool:
        """Say whether it holds a blob (server/routes.go, HeadBlobHandler)."""
        try:
            await self._done("HEAD", f"/api/blobs/{digest}")
        except BackendRefused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    async def put_blob(self, digest: Digest, size: int, content: Body) -> None:
        """Give it a blob of ``size`` bytes, which it hashes itself (server/routes.go, CreateBlobHandler)."""
        await self._done("POST", f"/api/blobs/{digest}", content, {"Content-Length": str(size)})

    async def _said(self, method: str, path: str, request: Mapping[str, Any] | None = None) -> Said:
        """Return the JSON object that answers a request."""
        async with self._backend.asked(method, path, _TYPE, _json(request) if request is not None else None) as answer:
            await self._insist(answer)
            raw = await self._read(answer, _LARGEST_ANSWER)
        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise BackendError(f"what answers at {self._backend.url}{path} is no Ollama: its answer is no JSON object")
        return said

    @asynccontextmanager
    async def _lines(self, path: str, request: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[Said]]:
        async with self._backend.asked("POST", path, _TYPE, _json(request)) as answer:
            await self._insist(answer)
            async with aclosing(self._backend.chunks(answer)) as chunks, aclosing(lines_of(chunks)) as found:
                yield found

    async def _done(self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None) -> None:
        async with self._backend.asked(method, path, headers or _TYPE, body) as answer:
            await self._insist(answer)

    async def _insist(self, answer: aiohttp.ClientResponse) -> None:
        """Raise BackendRefused for an answer that is no success, with the text that it has for a person."""
        if answer.status < 300:
            return
        raw = await self._read(answer, _LARGEST_REFUSAL)
        text = raw.decode("utf-8", "replace").strip()
        try:
            text = str(json.loads(raw)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            text = text or f"{answer.status} {answer.reason}"
        raise BackendRefused(answer.status, text)

    async def _read(self, answer: aiohttp.ClientResponse, limit: int) -> bytes:
        body = bytearray()
        async with aclosing(self._backend.chunks(answer)) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise BackendError(f"the answer of {self._backend.url} has more than {limit} bytes")
        return bytes(body)


_TYPE = {"Content-Type": "application/json"}


def _json(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said).encode()


def _understood(read: Callable[[Said], T], said: Said) -> T:
    try:
        return read(said)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BackendError(f"an answer that is none of Ollama's API: {error!r}") from error


def _rows(said: Said, read: Callable[[Said], T]) -> list[T]:
    return _understood(lambda one: [read(row) for row in one.get("models") or ()], said)
