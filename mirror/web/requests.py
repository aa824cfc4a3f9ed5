"""What routes of the admin API share: reading a body, and answering with a line for each step of long work."""

import json
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from aiohttp import web

from mirror.values import Invalid
from mirror.web.steps import Steps

_EXACT = float(1 << 53)


class BadRequest(Invalid):
    """A body or a query that is not what the route takes."""

    kind = "request"


async def body_of(request: web.Request, accepted: str, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Return the JSON object of a request, with these keys and no others; absent ones are left out.

    ``accepted`` shows a right one. Raises BadRequest, HTTPRequestEntityTooLarge.
    """
    raw = await request.read()
    body: Any = None
    with suppress(ValueError, RecursionError):
        body = json.loads(raw, parse_float=_number) if raw else {}
    right = isinstance(body, dict) and (not raw or request.content_type == "application/json")
    if right and all(key in kinds and _is(value, kinds[key]) for key, value in body.items()):
        return dict(body)
    shown = raw[:200].decode("utf-8", "replace")
    raise BadRequest(shown, f"a JSON object such as {accepted} with Content-Type application/json")


def _number(text: str) -> float | int:
    """Return a number that is written with a point or an exponent; 2.0 is as whole as 2 (JSON Schema §4.2.3)."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < _EXACT else number


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    """Whether a value is of a kind; Python takes true for a number, and JSON does not."""
    return isinstance(value, bool) if kind is bool else isinstance(value, kind) and not isinstance(value, bool)


async def lines(request: web.Request, work: AbstractAsyncContextManager[Steps]) -> web.StreamResponse:
    """Answer with one JSON object a line, as the work goes on; a client that leaves ends it."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    async with work as steps:
        with suppress(ConnectionError):
            async for step in steps:
                await response.write(json.dumps(step).encode() + b"\n")
            await response.write_eof()
    return response
