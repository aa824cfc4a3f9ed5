"""The gate that every request comes through: who asks, whether that is allowed, how often, and by which page."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Middleware

from mirror.access import (
    CALLER,
    RIGHTS,
    Caller,
    Grant,
    Limit,
    OwnNames,
    Pages,
    Passes,
    Rights,
    Scope,
    Whereabouts,
    client_of,
)
from mirror.access.credentials import Credentials, with_grant
from mirror.access.origins import is_same
from mirror.config import Settings
from mirror.registry.realms import Realms, unknown_host
from mirror.tracing import span
from mirror.values import Digest, Invalid
from mirror.web.needs import Route, Special, route_of
from mirror.web.refusals import refusal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_READ = ("GET", "HEAD", "OPTIONS")
_PAGE = web.RequestKey("mirror_page", str)
_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_HEADERS = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,OpenAI-Beta,Idempotency-Key,X-Stainless-Arch,"
    "X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
    "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
    "X-Stainless-Runtime-Version,X-Stainless-Timeout"
)
_PREFLIGHT_S = "43200"
_CSP = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FOREIGN = "requests from pages of other sites are refused"
_REBOUND = (
    "{host} is not a name that the mirror knows for its own; call it by its address, or put the name into "
    "server.names or server.public_url"
)
_HERE_ONLY = (
    "this is allowed from the mirror's own machine only, as no key is good for {scope} yet: "
    "mirror key add NAME --scope {scope} makes one there"
)
_LACKS = "the key of {user} is not good for {what}: it is good for {scopes}"
_NEEDS = "this needs a key{what}: Authorization: Bearer KEY; mirror key add makes one"
_BASIC = {"WWW-Authenticate": 'Basic realm="mirror: any user, and a key as password"'}
_BEARER = {"WWW-Authenticate": 'Bearer realm="mirror"'}
_BROKEN = "the mirror cannot read its keys, so what may need one is refused; its log says why"


class Gate:
    """Decides on every request, in memory. ``middleware`` comes last of all, ``prepare`` is for on_response_prepare."""

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        realms: Realms,
        passes: Passes,
        clock: Callable[[], float],
    ) -> None:
        security = settings.security
        self._passes = passes
        self._realms = realms
        self._keys = credentials.keys
        self._credentials = credentials
        self._where = Whereabouts(security.trusted_proxies)
        self._pages = Pages(security.origins)
        self._names = OwnNames(settings)
        self._decide = self._of_scope  # bound once: a request that waits keeps it
        self._clock = clock
        self._limit: Limit | None = None
        self.change_limit(security.rate_limit_requests, security.rate_limit_window)

    def change_limit(self, count: int | None, window_s: float) -> None:
        """Let through so many requests of each client in so long from now on, counting anew; None is any number."""
        self._limit = Limit(count, window_s, self._clock) if count is not None else None

    def middleware(self) -> Middleware:
        """Return what refuses, or sets ``request[CALLER]`` and goes on."""

        @web.middleware
        async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self._keys.due and route_of(request).need is not Special.NOTHING:
                await self._keys.refresh()
            with span("access"):
                refused = self._refusal(request)
            return refused or await handler(request)

        return checked

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Set the headers that keep browsers careful; a face's own stay."""
        headers = response.headers
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Referrer-Policy", "no-referrer")
        if headers.get("Content-Type", "").startswith("text/html"):
            headers.setdefault("Content-Security-Policy", _CSP)
        if (page := request.get(_PAGE)) is not None:
            headers["Access-Control-Allow-Origin"] = page
            headers["Vary"] = "Origin"

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer that ends a request here; None where it may go on."""
        caller = self._where.of(request.remote, request.headers, tls=request.secure)
        if self._is_plain_read(request):
            request[CALLER] = caller
            return None
        route = route_of(request)
        authorization = request.headers.get("Authorization")
        grant = self._credentials.grant(authorization, caller) if authorization else None
        if grant is not None:
            caller = with_grant(caller, grant)
        elif (grant := self._of_ticket(request, route)) is not None:
            caller = replace(with_grant(caller, grant), by_ticket=True)
        request[CALLER] = caller
        request[RIGHTS] = Rights(self._decide, request, caller)
        if (answer := self._of_page(request, caller)) is not None:
            return answer
        if route.counted and self._limit is not None:
            wait_s = self._limit.take(client_of(caller.key_id, caller.address))
            if wait_s > 0.0:
                said = f"too many requests: {self._limit.said}"
                return refusal(request, 429, said, {"Retry-After": str(int(wait_s) + 1)})
        return self._of_need(request, route, caller)

    def _is_plain_read(self, request: web.Request) -> bool:
        """Whether this is what nearly every request is: a blob, from nobody in particular, where that needs no key."""
        headers = request.headers
        return (
            request.method in _READ
            and request.rel_url.path_safe.startswith("/v2/")
            and not self._keys.guards(Scope.PULL)
            and self._limit is None
            and "Authorization" not in headers
            and "Origin" not in headers
        )

    def _of_ticket(self, request: web.Request, route: Route) -> Grant | None:
        """Return what the ticket in a blob's address is worth."""
        if route.need is not Scope.PULL or not request.query_string or not (text := request.query.get("ticket", "")):
            return None
        before, _, digest = request.rel_url.path_safe.rpartition("/")
        with suppress(Invalid):
            return self._keys.grant_of_ticket(text, Digest.parse(digest)) if before.endswith("/blobs") else None
        return None

    def _of_page(self, request: web.Request, caller: Caller) -> web.Response | None:
        """Refuse what a browser asks for a page that may not; answer for those that may (Fetch standard, CORS)."""
        origin = request.headers.get("Origin")
        if origin is None:
            return None
        if not is_same(origin, request.host):
            if request.rel_url.path_safe.startswith(("/api/", "/v1/")):
                if not self._pages.allow(origin):
                    return web.Response(status=403)
                request[_PAGE] = origin
                if request.method == "OPTIONS":
                    return _preflight()
            elif request.method not in _READ:
                return refusal(request, 403, _FOREIGN)
        if request.method not in _READ and caller.key_id is None and not self._names.has(request.host):
            return refusal(request, 403, _REBOUND.format(host=request.host[:200]))
        return None

    def _of_need(self, request: web.Request, route: Route, caller: Caller) -> web.Response | None:
        """Refuse what the caller may not."""
        keys = self._keys
        if route.need is Special.NOTHING:
            return None
        if route.need is Special.LOOKING:
            guarded = keys.guards(Scope.PULL) or keys.guards(Scope.API)
            if not guarded or caller.key_id is not None:
                return None
            return self._needs_key(request, caller, "")
        if route.need is Scope.PULL and self._passes.of_path(request.rel_url.path_safe) is not None:
            return None
        return self._of_scope(request, route.need, caller)

    def _of_scope(self, request: web.Request, scope: Scope, caller: Caller) -> web.Response | None:
        """Refuse what takes a scope, to a caller that has not got it while it is guarded or is for this machine."""
        if scope.within(caller.scopes):
            return None
        if self._keys.guards(scope):
            if caller.key_id is None:
                return self._needs_key(request, caller, f" that is good for {scope}")
        elif scope in (Scope.PULL, Scope.API):
            return None
        elif caller.local:
            ours = self._names.has(request.host)
            return None if ours else refusal(request, 403, _REBOUND.format(host=request.host[:200]))
        if caller.key_id is None:
            return refusal(request, 403, _HERE_ONLY.format(scope=scope))
        scopes = ", ".join(sorted(caller.scopes)) or "nothing"
        return refusal(request, 403, _LACKS.format(user=caller.user, what=scope, scopes=scopes))

    def _needs_key(self, request: web.Request, caller: Caller, what: str) -> web.Response:
        if self._keys.broken is not None:
            return refusal(request, 503, _BROKEN)
        authorization = request.headers.get("Authorization")
        if authorization and (wait_s := self._credentials.refused(authorization, caller)) > 0.0:
            said = "too many wrong keys from this address; see which key this machine shows"
            return refusal(request, 429, said, {"Retry-After": str(int(wait_s) + 1)})
        said = _NEEDS.format(what=what)
        if not request.rel_url.path_safe.startswith("/v2"):
            basic = "text/html" in request.headers.get("Accept", "")  # a browser then asks its user for a password
            return refusal(request, 401, said, _BASIC if basic else _BEARER)
        if (asking := self._realms.challenge(request, caller)) is not None:
            return refusal(request, 401, said, asking)
        said = f"{said}; {unknown_host(request)}"
        # Ollama shows its user what comes with any status but 401, to which it wants a realm (docs/protocol.md §8).
        ollama = request.headers.get("User-Agent", "").startswith("ollama/")
        return refusal(request, 403, said) if ollama else refusal(request, 401, said, _BASIC)


def _preflight() -> web.Response:
    headers = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": _HEADERS,
        "Access-Control-Max-Age": _PREFLIGHT_S,
    }
    return web.Response(status=204, headers=headers)
