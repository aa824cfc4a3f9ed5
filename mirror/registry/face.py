"""The routes of ``/v2``, and the one place where its errors become replies."""

from collections.abc import Awaitable, Callable, Iterable

import structlog
from aiohttp import web

from mirror.access import Passes
from mirror.errors import MirrorError
from mirror.events import Events
from mirror.fill import Admission, Fills, Tags
from mirror.registry.blobs import Blobs
from mirror.registry.locations import Locations
from mirror.registry.manifests import Manifests
from mirror.registry.replies import VERSION, error_reply, reply_to, reply_to_part
from mirror.registry.senders import Senders
from mirror.store import Store
from mirror.upstream import Upstreams
from mirror.values import Invalid

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ACCEPTED = (
    "accepted are /v2/, /v2/_catalog and /v2/<namespace>/<model>/manifests/<tag or digest>, "
    "/blobs/<digest> and /tags/list below /v2/<namespace>/<model>"
)

_LOOP = "this mirror's upstream leads back to the mirror itself; set upstream.url to the registry, or to a mirror of it"


class RegistryFace:
    """A read-only registry over the store and what fills it."""

    def __init__(
        self,
        store: Store,
        fills: Fills,
        tags: Tags,
        upstreams: Upstreams,
        events: Events,
        admission: Admission,
        locations: Locations,
        passes: Passes,
        senders: Senders,
        *,
        offline: bool,
    ) -> None:
        self._manifests = Manifests(tags, store, events, upstreams.routes, admission, passes)
        self._blobs = Blobs(store, fills, upstreams, events, admission, locations, passes, senders, offline=offline)
        self._chain = upstreams.chain

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return every route below /v2, errors already in the shape registries use."""
        model = "/v2/{namespace}/{model}"
        return [  # what is asked most comes first: the router tries one after the other
            web.get(f"{model}/blobs/{{digest}}", self._reading(self._blobs.get, "BLOB_UNKNOWN")),
            web.get(f"{model}/manifests/{{reference}}", self._reading(self._manifests.get, "MANIFEST_UNKNOWN")),
            web.get("/v2/", self._base),
            web.get("/v2", self._base),
            web.get("/v2/_catalog", _answering(self._manifests.catalog, "NAME_UNKNOWN")),
            web.get(f"{model}/tags/list", _answering(self._manifests.tags, "NAME_UNKNOWN")),
            web.route("*", r"/v2/{rest:[\s\S]*}", self._nothing),
        ]

    def _reading(self, handler: Handler, unknown: str) -> Handler:
        """Wrap a handler that may ask an upstream: a request that has been here before is refused."""
        answer = _answering(handler, unknown)

        async def read(request: web.Request) -> web.StreamResponse:
            via = ", ".join(request.headers.getall("Via", ()))
            if not via:
                return await answer(request)
            if self._chain.leads_back(via):
                return error_reply(508, "UNSUPPORTED", _LOOP)
            with self._chain.coming_through(via):
                return await answer(request)

        return read

    async def _base(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers=VERSION)

    async def _nothing(self, request: web.Request) -> web.StreamResponse:
        if request.method in ("GET", "HEAD"):
            return error_reply(404, "NAME_INVALID", f"no such path: {_ACCEPTED}")
        message = f"{request.method} is not supported: this registry mirrors another and is read-only"
        return error_reply(405, "UNSUPPORTED", message, {"Allow": "GET, HEAD"})


def _answering(handler: Handler, unknown: str) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except MirrorError as error:
            of_a_part = unknown == "BLOB_UNKNOWN" and request.method == "GET" and "Range" in request.headers
            return reply_to_part(error, unknown) if of_a_part else reply_to(error, unknown)
        except Invalid as error:
            return reply_to(error, unknown)
        except web.HTTPNotFound as error:
            return error_reply(404, unknown, error.text or "not found")
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:  # the edge of a request: aiohttp's own error text would become part of somebody's blob
            log.exception("request failed", path=request.path)
            return web.Response(status=500, headers={**VERSION, "X-Mirror-Error": "unforeseen; see the log"})

    return answer
