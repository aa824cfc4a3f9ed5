"""Errors as the OCI distribution specification writes them."""

import json
import math
from collections.abc import Mapping

from aiohttp import web

from mirror.errors import (
    DeniedByUpstream,
    DigestMismatch,
    ForbiddenAddress,
    MirrorError,
    NotAllowed,
    NotFoundUpstream,
    Offline,
    RateLimited,
    UpstreamLoop,
    UpstreamRefused,
    UpstreamUnavailable,
)
from mirror.values import Invalid, InvalidDigest, InvalidModelName, InvalidRange

VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}


def error_reply(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an OCI error body; the message is a sentence for a person."""
    body = {"errors": [{"code": code, "message": message}]}
    return web.json_response(body, status=status, headers={**VERSION, **(headers or {})})


def reply_to(error: MirrorError | Invalid, unknown: str) -> web.Response:
    """Return the answer to a foreseen error; ``unknown`` is the code for a thing that is not there."""
    message = str(error)
    match error:
        case InvalidDigest():
            return error_reply(400, "DIGEST_INVALID", message)
        case InvalidModelName():
            return error_reply(400, "NAME_INVALID", message)
        case InvalidRange():
            return error_reply(416, "RANGE_INVALID", message)
        case Invalid():
            return error_reply(400, "UNSUPPORTED", message)
        case NotFoundUpstream() | Offline():
            return error_reply(404, unknown, message)
        case RateLimited(retry_after_s=after):
            return error_reply(429, "TOOMANYREQUESTS", message, {"Retry-After": str(math.ceil(after or 30))})
        case NotAllowed() | DeniedByUpstream() | ForbiddenAddress() | UpstreamRefused():
            return error_reply(403, "DENIED", message)
        case UpstreamLoop():
            return error_reply(508, "UNSUPPORTED", message)
        case UpstreamUnavailable():
            return error_reply(503, "UNAVAILABLE", message, {"Retry-After": "5"})
        case DigestMismatch():
            return error_reply(502, "DIGEST_INVALID", message)
        case _:
            return error_reply(502, "UNKNOWN", message)


def reply_to_part(error: MirrorError, unknown: str) -> web.Response:
    """Return the answer to an error where a range of a blob was asked: the message is a header, the body empty.

    Ollama looks at no status then: as many bytes of a body as it still needs would become part of the blob
    (server/download.go, downloadChunk).
    """
    reply = reply_to(error, unknown)
    kept = {name: reply.headers[name] for name in ("Retry-After",) if name in reply.headers}
    shown = " ".join(str(error).encode("ascii", "replace").decode().split())
    return web.Response(status=reply.status, headers={**VERSION, **kept, "X-Mirror-Error": shown})


def no_such_range(error: InvalidRange, size: int) -> web.HTTPException:
    """Return the 416 that says how many bytes there are (RFC 9110 §15.5.17)."""
    body = json.dumps({"errors": [{"code": "RANGE_INVALID", "message": str(error)}]})
    headers = {**VERSION, "Content-Range": f"bytes */{size}"}
    return web.HTTPRequestRangeNotSatisfiable(text=body, content_type="application/json", headers=headers)
