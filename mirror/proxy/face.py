"""``/api`` routes answered from the store: the list of models and the version (docs/protocol.md §6)."""

from collections.abc import Iterable
from datetime import datetime

from aiohttp import web

from mirror.access import user_of
from mirror.fill import Admission
from mirror.store import Store, StoredManifest

OLLAMA_VERSION = "0.33.0"
"""The Ollama whose API these answers follow; clients parse it as plain numbers."""


class ApiFace:
    """Answers Ollama's clients about the models that are whole in the store."""

    def __init__(self, store: Store, admission: Admission) -> None:
        self._store = store
        self._admission = admission

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of this face."""
        return [web.get("/api/tags", self.tags), web.get("/api/version", self.version)]

    async def version(self, request: web.Request) -> web.StreamResponse:
        """Say which Ollama's API this is."""
        return web.json_response({"version": OLLAMA_VERSION})

    async def tags(self, request: web.Request) -> web.StreamResponse:
        """List the models that can be served whole, the newest first, as Ollama does (server/model_list_cache.go).

        What the policy refuses to the caller by its name is left out.
        """
        user = user_of(request)
        listed = [one for one in self._store.whole_models() if not self._admission.hides(one.name, user)]
        newest = sorted(listed, key=lambda one: one.written_at, reverse=True)
        return web.json_response({"models": [_row(one) for one in newest]})


def _row(stored: StoredManifest) -> dict[str, object]:
    name = stored.name.short
    return {
        "name": name,
        "model": name,
        "modified_at": _rfc3339(stored.written_at),
        "size": stored.size,
        "digest": stored.digest.hex,
        "details": {
            "parent_model": "",
            "format": "",
            "family": "",
            "families": None,
            "parameter_size": "",
            "quantization_level": "",
        },
    }


def _rfc3339(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
