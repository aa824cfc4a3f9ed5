"""What a fake Ollama answers, route by route."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol

from aiohttp import web

from mirror.demo.ollama import pull
from mirror.errors import MirrorError
from mirror.ollama import error_body
from mirror.values import Digest, Invalid, ModelName
from tests.fakes.ollama_folder import ModelsFolder
from tests.fakes.ollama_words import (
    Pace,
    anthropic_events,
    anthropic_message,
    generate_lines,
    openai_completion,
    openai_events,
    openai_response,
    openai_response_events,
    openai_text,
    openai_text_events,
    spoken,
    vectors,
    whole_answer,
)

VERSION = "0.33.0"

Events = Callable[[str, AsyncIterator[str]], AsyncIterator[dict[str, Any]]]
Whole = Callable[[str, str], dict[str, Any]]


class Fake(Protocol):
    """What the answers are made of."""

    folder: ModelsFolder
    pace: Pace
    words: tuple[str, ...]
    part_min: int


class Send(Protocol):
    """Sends lines as they come, or what goes wrong with them."""

    async def __call__(
        self, request: web.Request, lines: AsyncIterator[dict[str, Any]], *, sse: bool = False
    ) -> web.StreamResponse:
        """Answer with these lines."""


class Api:
    """The handlers of one Ollama."""

    def __init__(self, fake: Fake, send: Send) -> None:
        self._fake = fake
        self._send = send

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return them all."""
        return [
            web.get("/", self._alive),
            web.get("/api/version", self._version),
            web.get("/api/tags", self._tags),
            web.get("/api/ps", self._ps, allow_head=False),
            web.get("/debug/pprof/", self._alive),
            web.post("/api/show", self._show),
            web.post("/api/copy", self._copy),
            web.delete("/api/delete", self._delete),
            web.post("/api/pull", self._pull),
            web.head("/api/blobs/{digest}", self._has_blob),
            web.post("/api/blobs/{digest}", self._take_blob),
            web.post("/api/generate", self._generate),
            web.post("/api/chat", self._generate),
            web.post("/api/embed", self._embed),
            web.get("/v1/models", self._openai_models, allow_head=False),
            web.post("/v1/chat/completions", self._openai(openai_events, openai_completion)),
            web.post("/v1/completions", self._openai(openai_text_events, openai_text)),
            web.post("/v1/responses", self._openai(openai_response_events, openai_response)),
            web.post("/v1/messages", self._openai(anthropic_events, anthropic_message)),
            web.post("/v1/embeddings", self._openai_embeddings),
        ]

    async def _alive(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="Ollama is running")

    async def _version(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"version": VERSION})

    async def _tags(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"models": [self._fake.folder.row(name) for name in self._fake.folder.names()]})

    async def _ps(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"models": []})

    async def _show(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = self._fake.folder.find(_text(body))
        if name is None:
            return error(404, f"model '{ModelName.parse(_text(body)).short}' not found")
        return web.json_response(self._fake.folder.shown(name))

    async def _copy(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        source = self._fake.folder.find(body["source"])
        if source is None:
            return error(404, f'model "{body["source"]}" not found')
        self._fake.folder.copy(source, ModelName.parse(body["destination"]))
        return web.Response()

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = self._fake.folder.find(_text(body))
        if name is None:
            return error(404, f"model '{_text(body)}' not found")
        self._fake.folder.delete(name)
        return web.Response()

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = ModelName.parse(_text(body))
        lines = self._pulling(name, insecure=body.get("insecure", False))
        if body.get("stream", True):
            return await self._send(request, lines)
        last = [one async for one in lines][-1]
        return web.json_response(last, status=500 if "error" in last else 200)

    async def _pulling(self, name: ModelName, *, insecure: bool) -> AsyncIterator[dict[str, Any]]:
        """Pull as the classic path does (docs/protocol.md §3.1); a blob that comes quickly has one line."""
        yield {"status": "pulling manifest"}
        url = f"{'http' if insecure else 'https'}://{name.host}"
        try:
            report = await pull(url, name, self._fake.folder.root, part_min=self._fake.part_min)
        except (MirrorError, Invalid, OSError) as error:
            yield {"error": str(error)}
            return
        for blob in report.manifest.blobs:
            digest = str(blob.digest)
            yield {
                "status": f"pulling {blob.digest.hex[:12]}",
                "digest": digest,
                "total": blob.size,
                "completed": blob.size,
            }
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            yield {"status": status}

    async def _has_blob(self, request: web.Request) -> web.StreamResponse:
        there = self._fake.folder.blob(Digest.parse(request.match_info["digest"])).exists()
        return web.Response(status=200 if there else 404)

    async def _take_blob(self, request: web.Request) -> web.StreamResponse:
        digest = Digest.parse(request.match_info["digest"])
        if self._fake.folder.blob(digest).exists():
            return web.Response()
        got = await self._fake.folder.take_blob(digest, request.content.iter_any())
        if got != digest:
            return error(400, f'digest mismatch, expected "{digest}", got "{got}"')
        return web.Response(status=201)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body, chat = await request.json(), request.path == "/api/chat"
        name = self._fake.folder.find(_text(body))
        if name is None:
            return error(404, f"model '{_text(body)}' not found")
        lines = generate_lines(_text(body), spoken(self._fake.pace, self._fake.words), chat=chat)
        if body.get("stream", True):
            return await self._send(request, lines)
        return web.json_response(await whole_answer(lines, chat=chat))

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self._fake.folder.find(_text(body)) is None:
            return error(404, f'model "{_text(body)}" not found, try pulling it first')
        return web.json_response(
            {"model": _text(body), "embeddings": list(vectors(body["input"])), "total_duration": 1}
        )

    async def _openai_models(self, _: web.Request) -> web.StreamResponse:
        rows = [
            {"id": one.short, "object": "model", "created": 1, "owned_by": one.namespace}
            for one in self._fake.folder.names()
        ]
        return web.json_response({"object": "list", "data": rows or None})

    def _openai(self, events: Events, whole: Whole) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            if self._fake.folder.find(body["model"]) is None:
                said = f"model '{body['model']}' not found"
                return web.json_response(error_body(request.path, 404, said), status=404)
            words = spoken(self._fake.pace, self._fake.words)
            if body.get("stream"):
                return await self._send(request, events(body["model"], words), sse=True)
            return web.json_response(whole(body["model"], "".join([word async for word in words])))

        return answer

    async def _openai_embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        rows = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(vectors(body["input"]))]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response({"object": "list", "data": rows, "model": body["model"], "usage": usage})


def _text(body: Any) -> str:
    return str(body.get("model") or body.get("name") or "")


def error(status: int, text: str) -> web.Response:
    """Return an error in Ollama's own shape."""
    return web.json_response({"error": text}, status=status, dumps=lambda said: json.dumps(said, separators=(",", ":")))
