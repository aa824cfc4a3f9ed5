"""The data address: where clients are pointed to for the bytes of blobs, by plain HTTP and so by sendfile."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware
from yarl import URL

from mirror.config import ListenSettings
from mirror.listen.names import Names
from mirror.listen.sockets import here_of
from mirror.listen.visitor import Visitor

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ONLY_BLOBS = "this address gives the bytes of blobs and nothing else; everything else is at the mirror's own address\n"


class DataAddress:
    """Knows where the bytes are given, once the door has opened it and said its ``port``; 0 while there is none.

    A second host and port serve both of Ollama's clients with one redirect: the one for tensor models would else
    fetch every blob twice (docs/protocol.md §1). A client to which we are a proxy is pointed there only where
    ``listen.data_url`` says how: the name of a mirrored host means another machine to it.
    """

    def __init__(self, settings: ListenSettings, names: Names) -> None:
        self._url = URL(settings.data_url) if settings.data_url else None
        self._names = names
        self.port = 0

    def location(self, request: web.Request) -> URL | None:
        """Return where the bytes of the blob that a request asks for may be had instead; None: here."""
        if not self.port or self.took(request):
            return None
        base = self._url
        if base is None:
            host, here = request.url.host or "", here_of(request)[0]
            if _as_a_proxy(request) and not self._names.owns(host, here):
                return None
            base = URL.build(scheme="http", host=host, port=self.port)
        return base.with_path(base.path.rstrip("/") + request.rel_url.raw_path, encoded=True)

    def took(self, request: web.Request) -> bool:
        """Say whether a request came in at the data address."""
        return self.port != 0 and here_of(request)[1] == self.port

    def middleware(self) -> Middleware:
        """Return what lets nothing but reading blobs in there."""

        @web.middleware
        async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
            # A model may be called blobs: it is the last part but one that says what is asked for.
            if self.took(request) and not (
                request.method in ("GET", "HEAD")
                and request.path.startswith("/v2/")
                and request.path.rpartition("/")[0].endswith("/blobs")
            ):
                raise web.HTTPNotFound(text=_ONLY_BLOBS)
            return await handler(request)

        return checked


def _as_a_proxy(request: web.Request) -> bool:
    """Whether a client asks us as it asks a proxy: in absolute form (RFC 9112 §3.2.2), or after CONNECT."""
    visitor = request.protocol
    return not request.raw_path.startswith("/") or (isinstance(visitor, Visitor) and visitor.proxied)
