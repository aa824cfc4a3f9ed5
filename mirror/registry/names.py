"""Which model a request means: by the host it names, the port it came in at, and its path."""

from aiohttp import web

from mirror.listen.sockets import here_of
from mirror.upstream.routes import Routes
from mirror.values import ModelName


def asked_host(request: web.Request, routes: Routes) -> str:
    """Return the host under which the models are filed that a request is for."""
    return routes.host(request.host, here_of(request)[1], request.match_info.get("namespace", ""))


def asked_name(request: web.Request, routes: Routes, tag: str = "latest") -> ModelName:
    """Return the name in a request's path. Raises InvalidModelName."""
    path = request.match_info
    return ModelName(asked_host(request, routes), path["namespace"], path["model"], tag)
