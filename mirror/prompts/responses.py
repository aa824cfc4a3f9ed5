"""What became of a line of a batch, as a prompt job keeps it: a response as OpenAI's batches have it, or an error."""

import asyncio
import json
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import Any

from mirror.dispatch import AllFailed
from mirror.errors import BackendDown, BackendError, BackendRefused, MirrorError, NotAllowed, NowhereToRun
from mirror.ollama import error_body
from mirror.values import LARGE_JSON, too_many_parts

LARGEST_RESPONSE = 16_000_000
"""Bytes."""


async def whole(chunks: AsyncIterable[bytes]) -> dict[str, Any]:
    """Return the JSON object that an answer is. Raises BackendError for what is none, or too large a one."""
    raw = bytearray()
    async for chunk in chunks:
        raw += chunk
        if len(raw) > LARGEST_RESPONSE:
            raise BackendError(f"the answer has more than {LARGEST_RESPONSE} bytes")
    said: Any = None
    with suppress(ValueError, RecursionError):
        said = await asyncio.to_thread(_loads, bytes(raw)) if len(raw) > LARGE_JSON else json.loads(raw)
    if not isinstance(said, dict):
        raise BackendDown("the answer is no JSON object")
    return said


def _loads(raw: bytes) -> Any:
    if too_many_parts(raw):
        raise BackendError("the answer's JSON has too many parts")
    return json.loads(raw)


def response(id_: str, status: int, body: object) -> str:
    """Return an answer, of whatever status, to the prompt job of that id."""
    return json.dumps({"response": {"status_code": status, "request_id": id_, "body": body}})


def refusal(code: str, message: str) -> str:
    """Return why a line was not run."""
    return json.dumps({"error": {"code": code, "message": message}})


def failure(id_: str, path: str, error: MirrorError, said: str) -> str:
    """Return what a client of ``path`` would have been answered where a prompt job has failed."""
    status = _status(error)
    return response(id_, status, error_body(path, status, said))


def _status(error: MirrorError) -> int:
    match error:
        case BackendRefused(status=status):
            return status if status >= 400 else 500
        case AllFailed(failures=failures):
            return 404 if all(one.status == 404 for one in failures) else failures[-1].status
        case NowhereToRun():
            return 404
        case NotAllowed():
            return 403
        case _:
            return 503
