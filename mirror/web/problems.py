"""Errors of the admin API as problem+json (RFC 9457)."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from mirror.errors import (
    AskedTooOften,
    BadBundle,
    BadKey,
    DeniedByUpstream,
    MirrorError,
    NoSuchJob,
    NotAllowed,
    NotFoundUpstream,
    NothingEarlier,
    Offline,
    OnlyRead,
    QueueFull,
    QueueUnusable,
    RateLimited,
    StoreFull,
    UpstreamUnavailable,
)
from mirror.values import Invalid

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, title: str, detail: str) -> web.Response:
    """Return one problem; ``detail`` is a sentence for a person."""
    body = {"type": "about:blank", "status": status, "title": title, "detail": detail}
    return web.json_response(body, status=status, content_type="application/problem+json")


def problem_of(error: MirrorError | Invalid) -> web.Response:
    """Return the problem that a foreseen error is."""
    match error:
        case Invalid() | BadBundle():
            return problem(400, "Bad Request", str(error))
        case NotFoundUpstream() | NothingEarlier() | Offline() | NoSuchJob():
            return problem(404, "Not Found", str(error))
        case NotAllowed():
            return problem(403, "Forbidden", str(error))
        case DeniedByUpstream():
            return problem(403, "Denied by upstream", str(error))
        case RateLimited() | QueueFull() | AskedTooOften():
            return problem(429, "Too Many Requests", str(error))
        case OnlyRead() | BadKey():
            return problem(409, "Conflict", str(error))
        case StoreFull():
            return problem(507, "Insufficient Storage", str(error))
        case UpstreamUnavailable() | QueueUnusable():
            return problem(503, "Service Unavailable", str(error))
        case _:
            return problem(502, "Failed", str(error))


def answering(handler: Handler) -> Handler:
    """Wrap a handler so that foreseen errors become problems."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (MirrorError, Invalid) as error:
            return problem_of(error)
        except web.HTTPRequestEntityTooLarge as error:
            return problem(413, "Content Too Large", error.text or "the request is too large")

    return answer
