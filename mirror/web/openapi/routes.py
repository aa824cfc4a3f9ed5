"""Which routes an application has, as the document names them."""

from aiohttp import web

from mirror.web.openapi.document import Routes


def routes_of(app: web.Application) -> Routes:
    """Return every route but those for all that is no route, whose method is ``*``."""
    return frozenset((path, method) for path, method in _every(app) if method != "*")


def catch_alls_of(app: web.Application) -> frozenset[str]:
    """Return the paths of the routes for all that is no route."""
    return frozenset(path for path, method in _every(app) if method == "*")


def _every(app: web.Application) -> list[tuple[str, str]]:
    return [(one.resource.canonical, one.method) for one in app.router.routes() if one.resource is not None]
