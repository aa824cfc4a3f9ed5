"""Browsers in front of the mirror: pages of other sites, rebound names, preflights, and careful headers."""

from pathlib import Path

import pytest

from mirror.access import Scope
from tests.access import ask, made, proxied
from tests.fakes.registry import running_fake_registry
from tests.support import Answer, add_blob, blob_path, mirrored

ORIGINS = [
    # method, path, Origin, Host, status; None: anything but 403
    ("GET", "/api/tags", "http://localhost:3000", None, None),
    ("GET", "/api/tags", "https://chat.lan", None, None),
    ("GET", "/api/tags", "http://evil.example", None, 403),
    ("GET", "/api/tags", "null", None, 403),
    ("POST", "/api/chat", "app://obsidian.md", None, None),
    ("POST", "/v1/chat/completions", "http://evil.example", None, 403),
    ("GET", "/v2/", "http://evil.example", None, None),
    ("GET", "/mirror/stats", "http://evil.example", None, None),
    ("DELETE", "/mirror/cache", "http://evil.example", None, 403),
    ("DELETE", "/mirror/cache", "https://chat.lan", None, 403),
    ("DELETE", "/mirror/cache", "http://localhost:3000", None, 403),
    ("DELETE", "/mirror/cache", "null", None, 403),
    ("DELETE", "/mirror/cache", "http://mirror.lan", "mirror.lan", None),
    ("DELETE", "/mirror/cache", "http://evil.example", "evil.example", 403),
    ("DELETE", "/mirror/cache", None, "evil.example", 403),
    ("DELETE", "/mirror/cache", None, "models.example.org", None),
    ("DELETE", "/mirror/cache", None, "localhost", None),
    ("POST", "/mirror/v1/pulls", "http://evil.example", "evil.example", 403),
    ("POST", "/mirror/v1/pulls", None, "evil.example", None),
    ("POST", "/api/chat", "http://evil.example", "evil.example", 403),
    ("GET", "/mirror/v1/keys", None, "evil.example", 403),
    ("GET", "/mirror/v1/models", None, "evil.example", None),
    ("PUT", "/v2/library/m/manifests/latest", None, "evil.example", 403),
]


@pytest.mark.parametrize("shows_key", [False, True])
async def test_pages_of_other_sites_and_rebound_names(tmp_path: Path, shows_key: bool) -> None:
    """A browser on this machine is in the middle of the network: what a page may make it do is bounded."""
    secrets = made(tmp_path, Scope.ADMIN) if shows_key else {}
    more = {"security__origins": ("https://chat.lan",), "server__names": ("models.example.org",)}
    async with proxied(tmp_path, **more) as (_, client):
        for method, path, origin, host, refused in ORIGINS:
            wanted = refused
            headers = {"Host": host} if host else {}
            if origin is not None:
                headers["Origin"] = origin
            if shows_key:
                headers["Authorization"] = f"Bearer {secrets['admin']}"
                # A key is not something that a page of another site has; a foreign page is refused all the same.
                same = origin is None or origin.partition("://")[2] == host
                wanted = None if same else wanted
            answer = await ask(client, path, headers, method=method)
            assert (answer.status == 403) is (wanted == 403), (method, path, origin, host, answer)
            if wanted == 403 and path.startswith(("/api", "/v1")) and host is None:
                assert answer.body == b"", "as Ollama answers it"


async def test_a_preflight_is_answered_as_ollama_does(tmp_path: Path) -> None:
    """Browsers ask before they send JSON; also where a key is needed, which they do not send with it."""
    made(tmp_path, Scope.API)
    async with proxied(tmp_path) as (_, client):
        asked = {"Origin": "http://localhost:3000", "Access_Control_Request_Method": "POST"}
        answer = await ask(client, "/api/chat", asked, method="OPTIONS")
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert answer.headers["Access-Control-Max-Age"] == "43200"
        asked["Origin"] = "http://evil.example"
        assert (await ask(client, "/api/chat", asked, method="OPTIONS")).status == 403
        refused = await client.get("/api/tags", Origin="http://localhost:3000")
        assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, "http://localhost:3000")
        assert refused.headers["Vary"] == "Origin"


async def test_every_answer_has_the_headers_that_keep_browsers_careful(tmp_path: Path) -> None:
    """Streamed ones and errors as well; and a page runs nothing that is not ours."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, 100_000)
        async with mirrored(tmp_path, fake) as (_, client):
            await client.manifest()
            answers: list[Answer] = [
                await client.get(blob_path(digest)),
                await client.get(blob_path(digest), Range="bytes=0-9"),
                await client.get("/", Accept="text/html"),
                await client.get("/unknown"),
                await client.get("/v2/", method="POST"),
            ]
        assert answers[0].body == content
        for one in answers:
            assert one.headers["X-Content-Type-Options"] == "nosniff"
            assert one.headers["X-Frame-Options"] == "DENY"
            assert one.headers["Referrer-Policy"] == ("same-origin" if one is answers[2] else "no-referrer")
        assert "default-src 'none'" in answers[2].headers["Content-Security-Policy"]
        assert "Content-Security-Policy" not in answers[0].headers
