"""Errors of the admin API as problem+json (RFC 9457), and who may use it."""

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from mirror.errors import (
    BadBundle,
    DeniedByUpstream,
    MirrorError,
    NotFoundUpstream,
    Offline,
    OnlyRead,
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
        case NotFoundUpstream() | Offline():
            return problem(404, "Not Found", str(error))
        case DeniedByUpstream():
            return problem(403, "Denied by upstream", str(error))
        case RateLimited():
            return problem(429, "Too Many Requests", str(error))
        case OnlyRead():
            return problem(409, "Conflict", str(error))
        case StoreFull():
            return problem(507, "Insufficient Storage", str(error))
        case UpstreamUnavailable():
            return problem(503, "Upstream unavailable", str(error))
        case _:
            return problem(502, "Failed", str(error))


def answering(handler: Handler) -> Handler:
    """Wrap a handler so that foreseen errors become problems."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (MirrorError, Invalid) as error:
            return problem_of(error)

    return answer


class Doorkeeper:
    """Lets in what changes the mirror: callers on this machine, or with the key. Never another site's page."""

    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key

    def guarding(self, handler: Handler) -> Handler:
        """Wrap a handler so that only those who may get to it."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            refusal = self._refusal(request)
            return refusal or await handler(request)

        return guarded

    def _refusal(self, request: web.Request) -> web.Response | None:
        origin = request.headers.get("Origin")
        if origin and origin.lower().partition("://")[2] != request.host.lower():
            return problem(403, "Forbidden", "requests from pages of other sites are refused")
        if self._api_key is not None:
            scheme, _, said = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() == "bearer" and hmac.compare_digest(
                said.strip().encode(errors="surrogateescape"), self._api_key.encode()
            ):
                return None
            return problem(401, "Unauthorized", "this needs the key: Authorization: Bearer KEY")
        if not _own_host(request.host):
            return problem(403, "Forbidden", "without security.api_key only an address or a local name may be the Host")
        if request.remote and ipaddress.ip_address(request.remote.partition("%")[0]).is_loopback:
            return None
        return problem(403, "Forbidden", "without security.api_key this is allowed from the mirror's own machine only")


def _own_host(host: str) -> bool:
    """Whether a Host header is one that a page of another site cannot bring about by DNS rebinding (Ollama's rule)."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    bare = name.strip("[]").lower().rstrip(".")
    if bare == socket.gethostname().lower() or bare.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return bare == "localhost"
    return True
