"""Refusals as each face's clients read them: registries', Ollama's, OpenAI's, Anthropic's, and problem+json."""

from aiohttp import web

from mirror.ollama import error_body
from mirror.registry.replies import VERSION, error_reply
from mirror.web.problems import problem

_OCI = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS", 503: "UNAVAILABLE"}
_TITLES = {401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests", 503: "Service Unavailable"}


def refusal(request: web.Request, status: int, said: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return the answer to a request that is refused; ``said`` is a sentence for a person.

    Where a range of a blob was asked the body is empty: Ollama would take it for the blob's (docs/protocol.md §3).
    """
    answer = _answer(request, status, said)
    answer.headers.update(headers or {})
    return answer


def _answer(request: web.Request, status: int, said: str) -> web.Response:
    path = request.rel_url.path_safe
    if path == "/v2" or path.startswith("/v2/"):
        if request.method == "GET" and "Range" in request.headers and path.rpartition("/")[0].endswith("/blobs"):
            shown = said.encode("ascii", "replace").decode()
            return web.Response(status=status, headers={**VERSION, "X-Mirror-Error": shown})
        return error_reply(status, _OCI[status], said)
    if (body := error_body(path, status, said)) is not None:
        return web.json_response(body, status=status)
    return problem(status, _TITLES[status], said)
