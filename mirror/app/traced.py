"""One span per request, below which its parts have theirs."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from mirror.tracing import request_span

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Trace a request by its method and the pattern of its route; names and attributes are those of OpenTelemetry.

    Queries and headers are in no trace (semantic conventions for HTTP, "Server spans", less what tells of users).
    """
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unknown"
    said = {"http.request.method": request.method, "http.route": route, "url.path": request.rel_url.path}
    with request_span(f"{request.method} {route}", request.headers, said) as span:
        try:
            response = await handler(request)
        except web.HTTPException as error:
            if span is not None:
                span.set_attribute("http.response.status_code", error.status)
            raise
        if span is not None:
            span.set_attribute("http.response.status_code", response.status)
        return response
