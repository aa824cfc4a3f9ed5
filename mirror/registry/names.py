"""Which model a request means: by the host it names, the port it came in at, and its path."""

from aiohttp import web

from mirror.upstream.routes import Routes
from mirror.values import ModelName


def asked_host(request: web.Request, routes: Routes) -> str:
    """Return the host under which the models are filed that a request is for."""
    return routes.host(request.host, port_of(request), request.match_info.get("namespace", ""))


def asked_name(request: web.Request, routes: Routes, tag: str = "latest") -> ModelName:
    """Return the name in a request's path. Raises InvalidModelName."""
    path = request.match_info
    return ModelName(asked_host(request, routes), path["namespace"], path["model"], tag)


def port_of(request: web.Request) -> int | None:
    """Return the port of ours at which a request came in; None where its connection has gone."""
    here = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return here[1] if here else None
