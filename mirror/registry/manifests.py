"""``/v2/<namespace>/<model>/manifests/<tag or digest>``, and the lists of what is stored."""

from functools import lru_cache
from itertools import islice

from aiohttp import web

from mirror.access import Passes, user_of
from mirror.events import Events, ManifestServed, Served
from mirror.fill import Admission, Answer, Tags
from mirror.registry.names import asked_host, asked_name
from mirror.registry.replies import VERSION
from mirror.store import Store
from mirror.tracing import span
from mirror.upstream.routes import Routes
from mirror.values import Digest, Invalid, ModelName

_MOST = 1000


class Manifests:
    """Answers for manifests; the bytes are always the ones the upstream sent."""

    def __init__(
        self, tags: Tags, store: Store, events: Events, routes: Routes, admission: Admission, passes: Passes
    ) -> None:
        self._tags = tags
        self._store = store
        self._events = events
        self._routes = routes
        self._admission = admission
        self._passes = passes

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD of one manifest."""
        reference, user = request.match_info["reference"], user_of(request)
        handed = self._passes.of(request.match_info["namespace"])
        if handed is not None:
            return _reply(request, Answer(handed.manifest, Served.HIT, 0.0))
        if ":" in reference or reference.startswith("sha256-"):
            name = asked_name(request, self._routes)
            digest = Digest.parse(reference)
            self._admission.before_digest(name, digest, user)
            answer = await self._tags.by_digest(name, digest)
            await self._admission.after_digest(answer.manifest, user)
        else:
            name = asked_name(request, self._routes, reference)
            self._admission.before(name, user)
            with span("store", model=str(name)):
                answer = await self._tags.by_tag(name)
            await self._admission.after(name, answer.manifest, user)
        if request.method == "GET":
            self._events.publish(ManifestServed(name, answer.served))
        return _reply(request, answer)

    async def tags(self, request: web.Request) -> web.StreamResponse:
        """List the tags of one model that are in the store."""
        name = asked_name(request, self._routes).folded
        found = [one for one in self._listed(request) if one.with_tag("latest").folded == name]
        if not found:
            raise web.HTTPNotFound(text=f"{name.repository} is not in the store")
        tags, headers = _page(request, sorted(one.tag for one in found))
        return web.json_response({"name": found[0].repository, "tags": tags}, headers={**VERSION, **headers})

    async def catalog(self, request: web.Request) -> web.StreamResponse:
        """List the repositories that are in the store."""
        host = asked_host(request, self._routes).lower()
        found = {one.repository for one in self._listed(request) if one.host.lower() == host}
        repositories, headers = _page(request, sorted(found))
        return web.json_response({"repositories": repositories}, headers={**VERSION, **headers})

    def _listed(self, request: web.Request) -> list[ModelName]:
        """Every model in the store of which who asks may know."""
        names, user = [one.name for one in self._store.whole_models()], user_of(request)
        return [name for name in names if not self._admission.hides(name, user)]


def _reply(request: web.Request, answer: Answer) -> web.Response:
    manifest = answer.manifest
    headers = {**_headers(manifest.digest, manifest.media_type), "X-Mirror-Cache": answer.served.value}
    if answer.served is Served.STALE:
        headers["Warning"] = '110 - "the upstream could not be asked; this is what it said last"'
        if answer.age_s != float("inf"):
            headers["Age"] = str(int(answer.age_s))
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=manifest.raw, headers=headers)


@lru_cache(maxsize=256)
def _headers(digest: Digest, media_type: str) -> dict[str, str]:
    return {
        **VERSION,
        "Content-Type": media_type,
        "Docker-Content-Digest": str(digest),
        "Ollama-Content-Digest": digest.hex,
        "ETag": f'"{digest}"',
    }


def _page(request: web.Request, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """One page of a list by ``n`` and ``last``, with the Link to the next (OCI distribution-spec, listing tags)."""
    said = request.query.get("n", str(_MOST))
    if not said.isascii() or not said.isdigit():
        raise InvalidCount(said, "n=COUNT, a whole number")
    count = min(int(said.lstrip("0")[:9] or 0), _MOST)
    last = request.query.get("last", "")
    rest = [name for name in names if name > last]
    page = list(islice(rest, count))
    if count and len(rest) > count:
        following = request.rel_url.with_query({"n": str(count), "last": page[-1]})
        return page, {"Link": f'<{following.raw_path_qs}>; rel="next"'}
    return page, {}


class InvalidCount(Invalid):
    """A page size that is no number."""

    kind = "count"
