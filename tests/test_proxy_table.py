"""Which paths and methods go through, and who may ask for them."""

from pathlib import Path
from typing import Any

import pytest

from mirror.access import Scope
from mirror.proxy.table import TABLE, allowed
from tests.access import made
from tests.behind import asked, fronted

LAN = {"X_Forwarded_For": "10.1.1.1"}
ROUTES = tuple((method, row.path) for row in TABLE for method in row.methods)
"""As Ollama's server/routes.go has them; HEAD / and GET / are the mirror's own."""

NOT_THERE = (
    "/api",
    "/api/",
    "/api/nope",
    "/api/tags/",
    "/api/blobs",
    "/api/blobs/a/b",
    "/api/user/keys/a/b",
    "/api/%74ags/x",
    "/v1/",
    "/v1/images/generations",
    "/v1/models/a/b",
    "/v1/models/..%2f..%2fdebug%2fpprof%2f",
    "/v1/models/%2e%2e",
    "/v1/models/%2e",
    "/v1/models/a%5c..%5c..%5cdebug",
    "/api/blobs/..%2F..%2Fdebug",
    "/debug/pprof/",
    "/api/../debug/pprof/",
    "/api/..%2fdebug/pprof/",
    "//debug/pprof/",
    "/v1/../debug/pprof/",
)


ELSEWHERE = b'{"model": "127.0.0.1:9/ns/m"}'
"""A model of a registry that is none of the mirror's, which an Ollama has to pull for itself."""


async def test_every_route_of_ollama_goes_through_with_its_method_and_path(tmp_path: Path) -> None:
    """A program that finds one missing takes the mirror for an old Ollama."""
    async with fronted(tmp_path) as at:
        for method, path in ROUTES:
            real = (
                path.replace("{digest}", f"sha256:{'0' * 64}").replace("{model}", "ns%2Fm:8b").replace("{key}", "k%3D")
            )
            body = b"" if method in ("GET", "HEAD") else ELSEWHERE
            await asked(at.client, f"{real}?ts=1&x=%2F", body, method=method)
            came = at.ollama.asked[-1]
            assert (came.method, came.raw_path) == (method, f"{real}?ts=1&x=%2F")
        assert len(at.ollama.asked) == len(ROUTES) == 32


@pytest.mark.parametrize("path", NOT_THERE)
async def test_no_other_path_reaches_the_backend(path: str, tmp_path: Path) -> None:
    """Ollama has debug pages under the same roof; a path that nobody wrote down is never asked for."""
    async with fronted(tmp_path) as at:
        for method in ("GET", "POST", "DELETE"):
            answer = await at.client.get(path, method=method)
            assert answer.status in (400, 404, 405), method
        assert at.ollama.asked == []


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("POST", "/api/version", "GET, HEAD"),
        ("HEAD", "/api/ps", "GET"),
        ("GET", "/api/chat", "POST"),
        ("PUT", f"/api/blobs/sha256:{'0' * 64}", "POST, HEAD"),
        ("DELETE", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/batches", "GET, HEAD, POST"),
        ("DELETE", "/api/v1/prompt/1/status", "GET, HEAD"),
        ("POST", "/api/queue", "DELETE, GET, HEAD"),
    ],
)
async def test_another_method_is_answered_as_ollama_does(method: str, path: str, methods: str, tmp_path: Path) -> None:
    """405 in plain text with Allow (RFC 9110 §15.5.6), and the backend is not asked."""
    async with fronted(tmp_path) as at:
        answer = await at.client.get(path, method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, methods)
        assert answer.body == (b"" if method == "HEAD" else b"405 method not allowed")
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert at.ollama.asked == []


def test_a_path_is_known_only_as_a_whole() -> None:
    """Neither its beginning nor one that goes on."""
    assert allowed("/api/tags") == ("GET", "HEAD")
    assert allowed("/api/tags/x") == allowed("/x/api/tags") == allowed("/api/tag") == ()


async def test_keys_pages_and_limits_hold_for_the_api_too(tmp_path: Path) -> None:
    """An Ollama has no guard of its own: what the mirror lets through is done."""
    changes: dict[str, Any] = {"security__trusted_proxies": ["127.0.0.1"], "security__api_key": "word"}
    async with fronted(tmp_path, **changes) as at:
        for path in ("/api/chat", "/v1/chat/completions", "/api/blobs/sha256:" + "0" * 64):
            assert (await asked(at.client, path, {"model": "m"}, **LAN))[0] == 401
        page = await asked(at.client, "/api/chat", {}, Authorization="Bearer word", Origin="http://evil.example")
        assert page == (403, "")
        assert at.ollama.asked == []
        assert (await asked(at.client, "/api/chat", {"model": "m"}, Authorization="Bearer word", **LAN))[0] == 200
        (came,) = at.ollama.asked
        assert "Authorization" not in came.headers
    limited: dict[str, Any] = {"security__rate_limit_requests": 1}
    async with fronted(tmp_path / "second", **limited) as at:
        assert [(await at.client.get("/api/tags")).status for _ in range(2)] == [200, 429]
        assert len(at.ollama.asked) == 1


async def test_deleting_needs_an_admin_and_talking_does_not(tmp_path: Path) -> None:
    """Whoever may ask a model something must not thereby be able to take it from all others."""
    secret = made(tmp_path, Scope.API)[Scope.API]
    changes: dict[str, Any] = {"security__trusted_proxies": ["127.0.0.1"]}
    async with fronted(tmp_path, **changes) as at:
        shown = {"Authorization": f"Bearer {secret}", **LAN}
        assert (await asked(at.client, "/api/chat", {"model": "m"}, **shown))[0] == 200
        status, refused = await asked(at.client, "/api/delete", {"model": "m"}, method="DELETE", **shown)
        assert (status, "admin" in refused["error"]) == (403, True)
        assert [one.path for one in at.ollama.asked] == ["/api/chat"]
