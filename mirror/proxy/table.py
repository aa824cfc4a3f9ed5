"""Every route of Ollama's API that is passed on; what is not here does not exist (docs/protocol.md §6).

Ollama has more under the same roof, such as /debug/pprof, so a path that nobody has written down is never asked for.
"""

import re
from dataclasses import dataclass
from functools import cached_property

_GET, _HEAD, _POST, _DELETE = "GET", "HEAD", "POST", "DELETE"
_MODEL = ("model", "name")


@dataclass(frozen=True)
class Passed:
    """One row: ``path`` as aiohttp's router reads it; ``names`` are the fields of the JSON body that name models."""

    methods: tuple[str, ...]
    path: str
    names: tuple[str, ...] = ()

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What its paths look like."""
        return re.compile(re.sub(r"\{\w+\}", "[^/]+", self.path))


TABLE = (
    Passed((_GET, _HEAD), "/api/version"),
    Passed((_GET,), "/api/status"),
    Passed((_GET, _HEAD), "/api/tags"),
    Passed((_GET,), "/api/ps"),
    Passed((_POST,), "/api/show", _MODEL),
    Passed((_POST,), "/api/pull", _MODEL),
    Passed((_POST,), "/api/push", _MODEL),
    Passed((_DELETE,), "/api/delete", _MODEL),
    Passed((_POST,), "/api/create", (*_MODEL, "from")),
    Passed((_POST,), "/api/copy", ("source", "destination")),
    Passed((_POST, _HEAD), "/api/blobs/{digest}"),
    Passed((_POST,), "/api/generate", _MODEL),
    Passed((_POST,), "/api/chat", _MODEL),
    Passed((_POST,), "/api/embed", _MODEL),
    Passed((_POST,), "/api/embeddings", _MODEL),
    Passed((_POST,), "/api/me"),
    Passed((_POST,), "/api/signout"),
    Passed((_DELETE,), "/api/user/keys/{key}"),
    Passed((_POST,), "/api/experimental/web_search"),
    Passed((_POST,), "/api/experimental/web_fetch"),
    Passed((_GET,), "/api/experimental/model-recommendations"),
    Passed((_POST,), "/v1/chat/completions", _MODEL),
    Passed((_POST,), "/v1/completions", _MODEL),
    Passed((_POST,), "/v1/responses", _MODEL),
    Passed((_POST,), "/v1/embeddings", _MODEL),
    Passed((_GET,), "/v1/models"),
    Passed((_GET,), "/v1/models/{model}"),
    Passed((_POST,), "/v1/audio/transcriptions", _MODEL),
    Passed((_POST,), "/v1/messages", _MODEL),
)

GENERATING = frozenset(
    {
        "/api/generate",
        "/api/chat",
        "/api/embed",
        "/api/embeddings",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/messages",
    }
)
"""Those that a model has to work for, and that wait for their turn."""


def allowed(path: str) -> tuple[str, ...]:
    """Return the methods that a path takes; none where it does not exist."""
    return tuple(method for row in TABLE if row.pattern.fullmatch(path) for method in row.methods)
