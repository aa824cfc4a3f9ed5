"""What routes of the admin API share: reading a body, and answering with a line for each step of long work."""

import json
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from aiohttp import web

from mirror.values import Invalid
from mirror.web.steps import Steps


class BadRequest(Invalid):
    """A body or a query that is not what the route takes."""

    kind = "request"


async def body_of(request: web.Request, accepted: str, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Return the JSON object of a request, with these keys and no others; absent ones are left out.

    ``accepted`` shows a right one. Raises BadRequest.
    """
    raw = await request.read()
    body: Any = None
    with suppress(ValueError, RecursionError):
        body = json.loads(raw) if raw else {}
    right = isinstance(body, dict) and (not raw or request.content_type == "application/json")
    if right and all(key in kinds and isinstance(value, kinds[key]) for key, value in body.items()):
        return dict(body)
    shown = raw[:200].decode("utf-8", "replace")
    raise BadRequest(shown, f"a JSON object such as {accepted} with Content-Type application/json")


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
