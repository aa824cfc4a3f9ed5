"""What each route needs: one table, in which a path that is not there needs everything."""

from dataclasses import dataclass
from enum import Enum

from aiohttp import web

from mirror.access import Scope

_READ = frozenset({"GET", "HEAD"})


class Special(Enum):
    """Needs that no key is made for."""

    NOTHING = "nothing"
    LOOKING = "looking"


Need = Scope | Special


@dataclass(frozen=True, slots=True)
class Route:
    """One row: ``path`` is a whole path, or its beginning where it ends in a slash; None of ``methods`` is all."""

    path: str
    methods: frozenset[str] | None
    need: Need
    counted: bool = False

    def meets(self, path: str, method: str) -> bool:
        """Say whether this row is about such a request."""
        if self.methods is not None and method not in self.methods:
            return False
        return path.startswith(self.path) if self.path.endswith("/") and self.path != "/" else path == self.path


TABLE = (
    Route("/", _READ, Special.NOTHING),
    Route("/livez", _READ, Special.NOTHING),
    Route("/readyz", _READ, Special.NOTHING),
    Route("/mirror/health", _READ, Special.NOTHING),
    Route("/health", _READ, Special.NOTHING),
    Route("/mirror/ca.pem", _READ, Special.NOTHING),
    Route("/mirror/setup", _READ, Special.NOTHING),
    Route("/mirror/static/", _READ, Special.NOTHING),
    Route("/mirror/signin", _READ, Special.NOTHING, counted=True),
    Route("/v2/token", _READ, Special.NOTHING, counted=True),
    Route("/v2", _READ, Scope.PULL),
    Route("/v2/", _READ, Scope.PULL),
    Route("/v2/", None, Scope.PUSH),
    Route("/api/", None, Scope.API, counted=True),
    Route("/v1/", None, Scope.API, counted=True),
    Route("/jobs", None, Scope.API, counted=True),
    Route("/healthz", _READ, Special.NOTHING),
    Route("/nodes/heartbeat", frozenset({"POST"}), Special.NOTHING, counted=True),
    Route("/nodes", _READ, Special.LOOKING, counted=True),
    Route("/nodes/", _READ, Special.LOOKING, counted=True),
    Route("/nodes/", None, Scope.ADMIN, counted=True),
    Route("/metrics", _READ, Special.LOOKING),
    Route("/mirror/stats", _READ, Special.LOOKING),
    Route("/mirror/models", _READ, Special.LOOKING, counted=True),
    Route("/mirror/models/", _READ, Special.LOOKING, counted=True),
    Route("/mirror/pulls", _READ, Special.LOOKING, counted=True),
    Route("/mirror/pulls/ask", frozenset({"POST"}), Scope.PULL, counted=True),
    Route("/mirror/users", _READ, Special.LOOKING, counted=True),
    Route("/mirror/ollamas", _READ, Special.LOOKING, counted=True),
    Route("/prompts", _READ, Scope.API, counted=True),
    Route("/prompts/", None, Scope.API, counted=True),
    Route("/list", _READ, Scope.API, counted=True),
    Route("/mirror/v1/openapi.json", _READ, Special.NOTHING),
    Route("/mirror/v1/models", _READ, Special.LOOKING, counted=True),
    Route("/mirror/v1/models/", _READ, Special.LOOKING, counted=True),
    Route("/mirror/v1/store", _READ, Special.LOOKING, counted=True),
    Route("/mirror/v1/store/", _READ, Special.LOOKING, counted=True),
    Route("/mirror/v1/pulls", frozenset({"POST"}), Scope.PULL, counted=True),
    Route("/mirror/v1/queue", _READ, Special.LOOKING, counted=True),
    Route("/mirror/v1/queue/", _READ, Special.LOOKING, counted=True),
    Route("/mirror/v1/queue", frozenset({"POST"}), Scope.PULL, counted=True),
    Route("/mirror/v1/turns", _READ, Special.LOOKING, counted=True),
    Route("/mirror/v1/events", _READ, Special.LOOKING, counted=True),
    Route("/mirror/v1/", None, Scope.ADMIN, counted=True),
    Route("/mirror/cache", None, Scope.ADMIN, counted=True),
)
_ELSE = Route("", None, Scope.ADMIN)
_HOME_AS_PAGE = Route("/", _READ, Special.LOOKING)
_MANIFEST = Route("/v2/", _READ, Scope.PULL, counted=True)


def route_of(request: web.BaseRequest) -> Route:
    """Return the row for a request. ``path_safe`` is what aiohttp's router goes by: both see the same path."""
    path, method = request.rel_url.path_safe, request.method
    if path == "/" and method in _READ and "text/html" in request.headers.get("Accept", ""):
        return _HOME_AS_PAGE
    return row_of(path, method)


def row_of(path: str, method: str) -> Route:
    """Return the row for a method of a path, as programs ask for it."""
    if path.startswith("/v2/") and method in _READ and path != "/v2/token":
        return _MANIFEST if path.rpartition("/")[0].endswith("/manifests") else _BLOB
    return next((one for one in TABLE if one.meets(path, method)), _ELSE)


_BLOB = next(one for one in TABLE if one.path == "/v2/" and one.need is Scope.PULL)
