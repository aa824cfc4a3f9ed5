"""Files and batches in OpenAI's JSON, and errors in its form."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web

from mirror.batches.batch import WINDOW, Batch, BatchFile, InvalidBatch, NoSuchBatch, NoSuchFile, State, TooLarge
from mirror.batches.batch import TooManyBatches as TooMany
from mirror.batches.pages import Asked
from mirror.errors import MirrorError
from mirror.ollama import error_body
from mirror.values import Invalid

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LARGEST_BODY = 1 << 20
_FILE_LIMIT, _BATCH_LIMIT, _MOST_FILES, _MOST_BATCHES = 1000, 20, 10_000, 100


def answering(handler: Handler) -> Handler:
    """Wrap a handler so that foreseen errors become answers in OpenAI's form."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (Invalid, MirrorError) as error:
            status = _status(error)
            headers = {"Retry-After": "5"} if status == 429 else {}
            return web.json_response(error_body("/v1/", status, str(error)), status=status, headers=headers)

    return answer


def _status(error: Invalid | MirrorError) -> int:
    match error:
        case Invalid():
            return 400
        case NoSuchFile() | NoSuchBatch():
            return 404
        case TooLarge():
            return 413
        case TooMany():
            return 429
        case _:
            return 503


async def object_in(request: web.Request) -> object:
    """Return the JSON of a small body. Raises InvalidBatch, TooLarge."""
    raw = bytearray()
    while chunk := await request.content.readany():
        raw += chunk
        if len(raw) > _LARGEST_BODY:
            raise TooLarge(f"the request has more than {_LARGEST_BODY} bytes")
    with suppress(ValueError, RecursionError):
        said: object = json.loads(raw)
        return said
    raise InvalidBatch(raw[:100].decode("ascii", "backslashreplace"), "a JSON object")


def page_in(request: web.Request, *, files: bool) -> Asked:
    """Return which page is asked for. Raises InvalidBatch."""
    most, default = (_MOST_FILES, _FILE_LIMIT) if files else (_MOST_BATCHES, _BATCH_LIMIT)
    text, order = request.query.get("limit", ""), request.query.get("order", "desc")
    limit = default
    if text:
        limit = int(text) if len(text) < 10 and text.isascii() and text.isdigit() else 0
    if not 1 <= limit <= most:
        raise InvalidBatch(text[:100], f"limit: a whole number from 1 to {most}")
    if order not in ("asc", "desc"):
        raise InvalidBatch(order[:100], "order: asc, desc")
    return Asked(limit, request.query.get("after") or None, newest=order == "desc")


def list_view(rows: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, object]:
    """Return a page of a list."""
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": rows, "first_id": first, "last_id": last, "has_more": more}


def file_view(file: BatchFile) -> dict[str, object]:
    """Return a file."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


def batch_view(batch: Batch, completed: int, failed: int) -> dict[str, object]:
    """Return a batch, of which so many lines are completed and failed by now."""
    wanted = batch.wanted
    error = {"code": "batch_failed", "message": batch.error, "param": None, "line": None}
    times = {f"{one}_at": batch.times.get(f"{one}_at") for one in State if one is not State.VALIDATING}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": wanted.endpoint,
        "errors": {"object": "list", "data": [error]} if batch.error is not None else None,
        "input_file_id": wanted.input_file,
        "completion_window": WINDOW,
        "status": batch.state.value,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created_at.timestamp()),
        "expires_at": int(batch.expires_at.timestamp()),
        **times,
        "request_counts": {"total": batch.total, "completed": completed, "failed": failed},
        "metadata": wanted.metadata,
    }
