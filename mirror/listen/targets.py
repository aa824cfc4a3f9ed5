"""What a client of a proxy asks for: the target of CONNECT, and requests in absolute form (RFC 9112 §3.2)."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from mirror.listen.names import Names, authority_of
from mirror.listen.sockets import here_of
from mirror.listen.visitor import Visitor

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CONNECT = re.compile(rb"CONNECT (?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5}) HTTP/1\.[01]\r\n")

_OF_A_REGISTRY = ("/v2", "/mirror/")
_NO_HOST = "the request needs one Host header, which says the host and the port that it is for\n"
_NO_BODY = "the body of the request is not what its headers say: {error}\n"
_NO_SITE = "this is a mirror of {host}'s registry; the rest of that site is not here\n"


class BadTarget(ValueError):
    """A CONNECT that cannot be understood; the text is a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where CONNECT is to lead."""

    host: str
    port: int

    @classmethod
    def parse(cls, head: bytes) -> "Target":
        """Read the head of a CONNECT, whose target is a host and a port (RFC 9110 §9.3.6). Raises BadTarget."""
        match = _CONNECT.match(head)
        if match is None or not 0 < int(match[3]) < 65536:
            raise BadTarget("CONNECT needs a host and a port, such as registry.ollama.ai:443")
        return cls((match[1] or match[2]).decode(), int(match[3]))


def proxy_requests(names: Names) -> Middleware:
    """Return the middleware that lets in requests in absolute form for the hosts answered here, and no others.

    It comes first: what is behind it may make an address of the Host header, which is looked at here and nowhere else.
    """

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        visitor = request.protocol if isinstance(request.protocol, Visitor) else None
        if visitor is not None:
            visitor.asked()
        try:
            hosts = request.headers.getall("Host", ())
            if len(hosts) != 1 or authority_of(hosts[0]) is None:
                raise web.HTTPBadRequest(text=_NO_HOST)
            if not request.raw_path.startswith(("/", "*")):
                _check(request, names)
            if not request.path.startswith(_OF_A_REGISTRY) and _stands_in(request, names):
                raise web.HTTPNotFound(text=_NO_SITE.format(host=request.url.host))
            return await handler(request)
        except web.RequestPayloadError as error:
            if request.writer.output_size:
                raise
            raise web.HTTPBadRequest(text=_NO_BODY.format(error=error)) from error
        finally:
            if visitor is not None and request.content.is_eof():  # else the rest of a body comes, or the end
                visitor.answered()

    return checked


def _check(request: web.Request, names: Names) -> None:
    """Raise HTTPException unless a request that is not for a bare path is for one of our hosts.

    aiohttp has taken path and host from the target by now, as it should: the Host header says nothing beside it.
    """
    if request.method == "CONNECT":
        raise web.HTTPMethodNotAllowed("CONNECT", ["GET", "HEAD"], text="CONNECT comes first on a plain connection\n")
    host = request.url.host or ""
    if not names.answers(host, here_of(request)[0]):
        raise web.HTTPForbidden(text=refusal(host))


def _stands_in(request: web.Request, names: Names) -> bool:
    """Whether a request is for a host that the mirror is not itself."""
    host = request.url.host or ""
    return names.mirrors(host) and not names.owns(host, here_of(request)[0])


def refusal(host: str) -> str:
    """Return the sentence for one who asks for a host that is not answered here."""
    return f"{host} is not mirrored here, and not a name of this mirror (server.public_url gives it one)\n"
