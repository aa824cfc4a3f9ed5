"""Reading the JSON body of a request as Ollama reads it: what it says, and what Ollama says of one that is wrong."""

import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpVersion11

from mirror.config import render_size
from mirror.errors import MirrorError
from mirror.values import MOST_PARTS, too_many_parts

_KINDS = ((bool, "bool"), (int, "number"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))


def compact(value: object) -> str:
    """Return JSON without spaces, as Ollama writes it."""
    return json.dumps(value, separators=(",", ":"))


class Refused(MirrorError):
    """A request that is answered with an error here; ``status`` is HTTP's."""

    def __init__(self, status: int, said: str) -> None:
        self.status = status
        super().__init__(said)


async def expecting(request: web.Request) -> None:
    """Promise nothing yet to a client that waits with its body (RFC 9110 §10.1.1): ``begin`` does, or a refusal."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="100-continue is all that can be expected here")


async def begin(request: web.Request) -> None:
    """Let a client that waits send its body."""
    if "Expect" in request.headers and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp does: what counts is the answer to come


async def body_of(request: web.Request, limit: int) -> bytes:
    """Read a whole body. Raises Refused 413 for one of more than ``limit`` bytes."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    await begin(request)
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the request has more than {render_size(limit)}, which proxy.max_body allows")


def object_of(raw: bytes, kind: str) -> dict[str, Any]:
    """Return the JSON object of a body, its keys folded as Go's decoder folds them; of a key said twice the last.

    ``kind`` is Ollama's word for the request, which its texts hold. Raises Refused 400 with Ollama's text.
    """
    return {key.casefold(): value for key, value in _pairs(raw, kind).pairs}


def texts_of(raw: bytes, keys: Iterable[str], kind: str) -> list[str]:
    """Return every text that a body says under one of ``keys``, however often. Raises Refused 400."""
    found = [value for key, value in _pairs(raw, kind).pairs if key.casefold() in keys and value is not None]
    if wrong := next((value for value in found if not isinstance(value, str)), None):
        raise Refused(400, f"json: cannot unmarshal {_kind(wrong)} into Go value of type string")
    return [value for value in found if isinstance(value, str) and value]


def text_in(body: dict[str, Any], *keys: str, kind: str) -> str:
    """Return the first text that is said under ``keys``, empty where none is. Raises Refused 400 for what is none."""
    for key in keys:
        value = body.get(key)
        if value is not None and not isinstance(value, str):
            said = f"json: cannot unmarshal {_kind(value)} into Go struct field {kind}.{key} of type string"
            raise Refused(400, said)
    return next((body[key] for key in keys if body.get(key)), "")


def flag_in(body: dict[str, Any], key: str, *, default: bool, kind: str) -> bool:
    """Return a yes or no. Raises Refused 400 for what is neither."""
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refused(400, f"json: cannot unmarshal {_kind(value)} into Go struct field {kind}.{key} of type bool")
    return value


class _Pairs(dict[str, Any]):
    """An object, and as it is written: Go takes the last of two keys alike, whatever their letter case."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _pairs(raw: bytes, kind: str) -> _Pairs:
    if too_many_parts(raw):
        raise Refused(413, f"the request's JSON has more than {MOST_PARTS} parts")
    try:
        said = json.loads(raw.decode(), object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise Refused(400, _go_said(error)) from error
    except (ValueError, RecursionError) as error:  # bytes that are no text, a number of thousands of digits
        raise Refused(400, "the request's body is no JSON text in UTF-8") from error
    if not isinstance(said, _Pairs):
        raise Refused(400, f"json: cannot unmarshal {_kind(said)} into Go value of type api.{kind}")
    return said


def _go_said(error: json.JSONDecodeError) -> str:
    """Return what Go's decoder says of such a text (encoding/json, scanner.go), as near as matters to a person."""
    if not error.doc.strip():
        return "missing request body"
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    place = "beginning of object key string" if "property name" in error.msg else "beginning of value"
    return f"invalid character {error.doc[error.pos]!r} looking for {place}"


def _kind(value: object) -> str:
    if isinstance(value, _Pairs):
        return "object"
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")
