"""Requests and answers of prompt jobs: JSON objects in, ``{"error": ...}`` where something is wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from aiohttp import web

from mirror.config import Run, render_size
from mirror.errors import MirrorError, NotAllowed
from mirror.prompts.prompt import InvalidPrompt, NoSuchPrompt, Prompt, State, TooManyPrompts
from mirror.prompts.prompts import Page
from mirror.values import LARGE_JSON, MOST_PARTS, Invalid, too_many_parts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGEST_PAGE = 100
_MOST_HELD = 1 << 29
_LONGEST_KEY = 200
_AGAIN_S = "5"


class TooLarge(MirrorError):
    """A body of more bytes than are read."""


def answering(handler: Handler) -> Handler:
    """Wrap a handler so that foreseen errors become answers in the shape of Ollama's."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (Invalid, MirrorError) as error:
            headers = {"Retry-After": _AGAIN_S} if isinstance(error, TooManyPrompts) else {}
            return web.json_response({"error": str(error)}, status=_status(error), headers=headers)

    return answer


def _status(error: Invalid | MirrorError) -> int:
    match error:
        case Invalid():
            return 400
        case NotAllowed():
            return 403
        case NoSuchPrompt():
            return 404
        case TooLarge():
            return 413
        case TooManyPrompts():
            return 429
        case _:
            return 503


class Bodies:
    """Reads bodies of at most ``limit`` bytes, and of at most ``most`` all that are in work together."""

    def __init__(self, limit: int, most: int = _MOST_HELD) -> None:
        self._limit = limit
        self._most = max(limit, most)
        self._held = 0

    @asynccontextmanager
    async def reading(self, request: web.Request) -> AsyncIterator[Any]:
        """Yield the JSON of a body, which counts until the context ends.

        Raises InvalidPrompt, TooLarge, TooManyPrompts.
        """
        too_large = TooLarge(f"the request has more than {render_size(self._limit)}, which proxy.max_body allows")
        if (request.content_length or 0) > self._limit:
            raise too_large
        raw = bytearray()
        counted = 0
        try:
            while chunk := await request.content.readany():
                raw += chunk
                self._held, counted = self._held + len(chunk), counted + len(chunk)
                if counted > self._limit:
                    raise too_large
                if self._held > self._most:
                    raise TooManyPrompts("the prompts that come in just now take too much memory; try again later")
            yield await _read(raw)
        finally:
            self._held -= counted


async def _read(raw: bytearray) -> Any:
    with suppress(ValueError, RecursionError):
        return await asyncio.to_thread(_loads, raw) if len(raw) > LARGE_JSON else json.loads(raw)
    raise InvalidPrompt(
        raw[:200].decode("ascii", "backslashreplace"), 'JSON such as {"prompt": "Why is the sky blue?"}'
    )


def _loads(raw: bytearray) -> Any:
    if too_many_parts(raw):
        raise TooLarge(f"the request's JSON has more than {MOST_PARTS} parts")
    return json.loads(raw)


def key_in(request: web.Request) -> str | None:
    """Return the idempotency key of a submission. Raises InvalidPrompt for one that is none."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isprintable()):
        raise InvalidPrompt(key, f"Idempotency-Key: 1 to {_LONGEST_KEY} printable characters")
    return key


def number_in(request: web.Request, name: str, default: int) -> int:
    """Return a whole number of the query. Raises InvalidPrompt for what is none."""
    text = request.query.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise InvalidPrompt(text, f"{name}: a whole number") from None


def status_view(prompt: Prompt) -> dict[str, object]:
    """Return what its status is; the older form, with the error where it failed, and what it waits for."""
    run = {"run": prompt.run.value} if prompt.run is not Run.NOW else {}
    error = {"error": prompt.error} if prompt.state is State.FAILED else {}
    return {"id": prompt.id, "status": prompt.state.value, **run, **error}


def page_view(page: Page) -> dict[str, object]:
    """Return a page of the list."""
    return {
        "prompts": [
            {
                "id": one.id,
                "status": one.state.value,
                "created_at": _shown(one.created_at),
                "updated_at": _shown(one.updated_at),
            }
            for one in page.prompts
        ],
        "page": page.number,
        "page_size": page.size,
        "total": page.total,
        "total_pages": page.pages,
    }


def _shown(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds")
