"""What the mirror answers where no Ollama stands behind it: its models, listed, shown, pulled and deleted."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from aiohttp import web

from mirror.access import RIGHTS, Scope, user_of
from mirror.fill import Admission, Tags
from mirror.proxy.bodies import Refused, compact, object_of, text_in
from mirror.proxy.described import Descriptions
from mirror.proxy.marks import named
from mirror.store import Store, StoredManifest
from mirror.values import ModelName

OLLAMA_VERSION = "0.33.0"
"""The Ollama whose API these answers follow; clients parse it as plain numbers."""

_ALONE = (
    "no Ollama stands behind this mirror, so it can list, show, pull and delete models and nothing else: start one, "
    "and set proxy.backend (or OLLAMA_BACKEND) to its URL, such as http://127.0.0.1:11435"
)
Row = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OwnAnswers:
    """Answers Ollama's clients from the store (Ollama's server/routes.go)."""

    def __init__(
        self,
        store: Store,
        admission: Admission,
        tags: Tags,
        descriptions: Descriptions,
        *,
        host: str,
    ) -> None:
        self._store = store
        self._admission = admission
        self._tags = tags
        self._descriptions = descriptions
        self._host = host
        self._handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/api/version"): self.version,
            ("GET", "/api/ps"): self.ps,
        }

    async def answer(self, request: web.Request, path: str) -> web.StreamResponse:
        """Answer a request for ``path`` of the table. Raises Refused 501 for what takes an Ollama."""
        method = "GET" if request.method == "HEAD" else request.method
        handler = self._handlers.get((method, path))
        if handler is None:
            raise Refused(501, _ALONE)
        return await handler(request)

    async def version(self, request: web.Request) -> web.StreamResponse:
        """Say which Ollama's API this is."""
        return web.json_response({"version": OLLAMA_VERSION}, dumps=compact)

    async def ps(self, request: web.Request) -> web.StreamResponse:
        """Say that nothing is loaded."""
        return web.json_response({"models": []}, dumps=compact)

    async def rows(self, user: str) -> list[Row]:
        """Return what /api/tags says of the models that can be served whole, the newest first.

        What the policy refuses to the user by its name is left out (server/model_list_cache.go).
        """
        listed = [one for one in self._store.whole_models() if not self._admission.hides(one.name, user)]
        return [await self._row(one) for one in sorted(listed, key=lambda one: one.written_at, reverse=True)]

    async def show(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        """Show one model (server/routes.go, GetModelInfo)."""
        text = text_in(object_of(raw, "ShowRequest"), "model", "name", kind="ShowRequest")
        if not text:
            raise Refused(400, "model is required")
        name = named(text, self._tags, self._host, "invalid model name")
        self._admission.before(name, user_of(request))
        stored = self.whole(name)
        if stored is None:
            raise Refused(404, f"model '{name.short}' not found")
        return web.json_response(await self._shown(stored), dumps=compact)

    async def delete(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        """Remove a model from the store (server/routes.go, DeleteHandler), for admins."""
        if (no := request[RIGHTS].refusal(Scope.ADMIN)) is not None:
            return no
        text = text_in(object_of(raw, "DeleteRequest"), "model", "name", kind="DeleteRequest")
        if not text:
            raise Refused(400, "model is required")
        name = named(text, self._tags, self._host, f'name "{text}" is invalid')
        self._admission.before(name, user_of(request))
        if await self._store.remove(name) is None:
            raise Refused(404, f"model '{text}' not found")
        return web.Response()

    def whole(self, name: ModelName) -> StoredManifest | None:
        """Return a model that can be served whole; None where there is none of that name."""
        return self._store.complete.find(name) or self._store.extra.find_whole(name)

    async def _row(self, stored: StoredManifest) -> Row:
        described = await self._descriptions.of(stored)
        name = stored.name.short
        return {
            "name": name,
            "model": name,
            "modified_at": rfc3339(stored.written_at),
            "size": stored.size,
            "digest": stored.digest.hex,
            "details": {**described.details(), **described.lengths()},
        }

    async def _shown(self, stored: StoredManifest) -> dict[str, object]:
        described = await self._descriptions.of(stored)
        texts = {kind: self._descriptions.layers(stored, kind) for kind in ("license", "template", "system", "params")}
        texts["template"] += self._descriptions.layers(stored, "prompt")  # its old name
        shown = {
            "license": "\n".join(texts["license"]),
            "modelfile": f"# Modelfile of a model in a mirror\nFROM {stored.name.short}\n",
            "parameters": _parameters(texts["params"]),
            "template": "".join(texts["template"][:1]),
            "system": "".join(texts["system"][:1]),
            "details": described.details(),
            "model_info": described.model_info(),
            "modified_at": rfc3339(stored.written_at),
        }
        always = ("details", "model_info", "modified_at", "modelfile")
        return {key: value for key, value in shown.items() if value or key in always}


def _parameters(texts: list[str]) -> str:
    """Return options as lines, as ``ollama show`` prints them; a list is a line for each of its items."""
    said: Any = {}
    with suppress(ValueError, RecursionError):
        said = json.loads(texts[0]) if texts else {}
    rows = [
        (key, one)
        for key, value in sorted(said.items() if isinstance(said, dict) else ())
        for one in (value if isinstance(value, list) else [value])
    ]
    return "\n".join(f"{key:<30} {json.dumps(one, ensure_ascii=False)}" for key, one in rows)


def rfc3339(when: datetime) -> str:
    """Return an instant as Ollama writes it."""
    return when.isoformat().replace("+00:00", "Z")
