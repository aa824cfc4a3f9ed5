"""Requests and answers of the hub and its nodes: JSON objects in, ``{"detail": ...}`` where something is wrong."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from mirror.errors import MirrorError
from mirror.hub.registry import NoSuchNode
from mirror.values import LARGE_JSON, MOST_PARTS, Invalid, too_many_parts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadBody(Invalid):
    """A body that is no JSON object."""

    kind = "body"


class BodyTooLarge(MirrorError):
    """A body of more bytes than are read."""


def detailed(status: int, detail: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error: ``detail`` is a sentence for a person, or an object."""
    return web.json_response({"detail": detail}, status=status, headers=headers)


def detailing(handler: Handler) -> Handler:
    """Wrap a handler so that foreseen errors become answers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Invalid as error:
            return detailed(400, str(error))
        except NoSuchNode as error:
            return detailed(404, str(error))
        except BodyTooLarge as error:
            return detailed(413, str(error))
        except MirrorError as error:
            return detailed(503, str(error))

    return answer


async def object_of(request: web.Request, limit: int) -> dict[str, Any]:
    """Return the JSON object of a body of at most ``limit`` bytes. Raises BadBody, BodyTooLarge."""
    raw = bytearray()
    while chunk := await request.content.readany():
        raw += chunk
        if len(raw) > limit:
            raise BodyTooLarge(f"the request has more than {limit} bytes")
    said = await asyncio.to_thread(_read, raw) if len(raw) > LARGE_JSON else _read(raw)
    if not isinstance(said, dict):
        raise BadBody(raw[:200].decode("ascii", "backslashreplace"), "a JSON object")
    return said


def _read(raw: bytearray) -> Any:
    """Return what a JSON text says, None where it is none. Raises BodyTooLarge."""
    if too_many_parts(raw):
        raise BodyTooLarge(f"the request's JSON has more than {MOST_PARTS} parts")
    with suppress(ValueError, RecursionError):
        return json.loads(raw)
    return None


def shows(request: web.Request, token: str) -> bool:
    """Say whether a request shows the token, in a time that does not depend on how much of it is right."""
    kind, _, shown = request.headers.get("Authorization", "").partition(" ")
    right = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), token.encode())
    return right and kind.lower() == "bearer"


def unknown_caller() -> web.Response:
    """Return the answer to who does not show the token."""
    return detailed(401, "this needs the hub's token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
