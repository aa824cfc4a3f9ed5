"""What is asked of ``/mirror/v1`` and is no route: a problem, as every error there."""

from collections.abc import Iterable

from aiohttp import web

from mirror.web.problems import problem


class OtherPaths:
    """Answers for every path below ``/mirror/v1`` that is no other face's; its route comes after theirs."""

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return its one route."""
        return [web.route("*", r"/mirror/v1/{rest:[\s\S]*}", self.answer)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Say that there is no such path, or with Allow which methods it takes (RFC 9110 §15.5.6)."""
        found = [(await one.resolve(request))[1] for one in request.app.router.resources()]
        methods = sorted({method for methods in found for method in methods if method != "*"})
        if not methods:
            return problem(404, "Not Found", "there is no such path; /mirror/v1/openapi.json has those that there are")
        refused = problem(405, "Method Not Allowed", f"here one may {', '.join(methods)}")
        refused.headers["Allow"] = ", ".join(methods)
        return refused
