"""What the gate lets in: routes by callers, pages, limits, and how it says no."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from mirror.access import Keyring, Scope
from tests.access import ask, made, proxied
from tests.support import MANIFEST, Machine, eventually

BLOB = f"/v2/library/m/blobs/sha256:{'0' * 64}"
PAGE = "/ as a page"
LAN = {"X_Forwarded_For": "192.168.7.7"}
CLOSED_COLUMNS = ("lan", "here", "pull", "api", "push", "admin")

# What a caller without a key gets from the network and on this machine where there are no keys, and what everybody gets
# where there is one for each scope. "in" is anything but a refusal.
ROUTES: tuple[tuple[str, str, tuple[str, str], tuple[str, ...]], ...] = (
    ("GET", "/", ("in", "in"), ("in", "in", "in", "in", "in", "in")),
    ("GET", PAGE, ("in", "in"), ("401", "401", "in", "in", "in", "in")),
    ("GET", "/livez", ("in", "in"), ("in", "in", "in", "in", "in", "in")),
    ("GET", "/readyz", ("in", "in"), ("in", "in", "in", "in", "in", "in")),
    ("GET", "/health", ("in", "in"), ("in", "in", "in", "in", "in", "in")),
    ("GET", "/mirror/health", ("in", "in"), ("in", "in", "in", "in", "in", "in")),
    ("GET", "/mirror/ca.pem", ("in", "in"), ("in", "in", "in", "in", "in", "in")),
    ("GET", "/mirror/setup", ("in", "in"), ("in", "in", "in", "in", "in", "in")),
    ("GET", "/v2/", ("in", "in"), ("401", "401", "in", "403", "403", "in")),
    ("HEAD", BLOB, ("in", "in"), ("401", "401", "in", "403", "403", "in")),
    ("GET", "/v2/library/m/manifests/latest", ("in", "in"), ("401", "401", "in", "403", "403", "in")),
    ("GET", "/v2/_catalog", ("in", "in"), ("401", "401", "in", "403", "403", "in")),
    ("POST", "/v2/library/m/blobs/uploads/", ("403", "in"), ("401", "401", "403", "403", "in", "in")),
    ("PUT", "/v2/library/m/manifests/latest", ("403", "in"), ("401", "401", "403", "403", "in", "in")),
    ("POST", "/v2/token", ("403", "in"), ("401", "401", "403", "403", "in", "in")),
    ("GET", "/api/tags", ("in", "in"), ("401", "401", "403", "in", "403", "in")),
    ("POST", "/api/chat", ("in", "in"), ("401", "401", "403", "in", "403", "in")),
    ("GET", "/v1/models", ("in", "in"), ("401", "401", "403", "in", "403", "in")),
    ("POST", "/v1/messages", ("in", "in"), ("401", "401", "403", "in", "403", "in")),
    ("GET", "/metrics", ("in", "in"), ("401", "401", "in", "in", "in", "in")),
    ("GET", "/mirror/stats", ("in", "in"), ("401", "401", "in", "in", "in", "in")),
    ("GET", "/mirror/v1/models", ("in", "in"), ("401", "401", "in", "in", "in", "in")),
    ("GET", "/mirror/v1/models/m", ("in", "in"), ("401", "401", "in", "in", "in", "in")),
    ("GET", "/mirror/v1/store", ("in", "in"), ("401", "401", "in", "in", "in", "in")),
    ("GET", "/mirror/v1/store/pins", ("in", "in"), ("401", "401", "in", "in", "in", "in")),
    ("POST", "/mirror/v1/pulls", ("in", "in"), ("401", "401", "in", "403", "403", "in")),
    ("DELETE", "/mirror/v1/models/m", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("POST", "/mirror/v1/models/rollback", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("POST", "/mirror/v1/models/release", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("GET", "/mirror/v1/earlier/m", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("POST", "/mirror/v1/store/gc", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("POST", "/mirror/v1/store/pins", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("GET", "/mirror/v1/keys", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("POST", "/mirror/v1/keys", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("DELETE", "/mirror/cache", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("GET", "/mirror/unknown", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("GET", "/unknown", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("GET", "/mirror%2Fhealth", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("GET", "//livez", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("POST", "/livez", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
    ("DELETE", "/", ("403", "in"), ("401", "401", "403", "403", "403", "in")),
)  # fmt: skip


async def _ask(client: Machine, method: str, path: str, caller: str, secrets: Mapping[str, str]) -> str:
    headers = dict(LAN) if caller != "here" else {}
    if caller in secrets:
        headers["Authorization"] = f"Bearer {secrets[caller]}"
    if path == PAGE:
        path, headers["Accept"] = "/", "text/html"
    answer = await ask(client, path, headers, method=method)
    return str(answer.status) if answer.status in (401, 403, 429, 503) else "in"


async def test_routes_where_there_are_nomade(tmp_path: Path) -> None:
    """Everybody may look and pull; what changes the mirror is for its own machine."""
    async with proxied(tmp_path) as (_, client):
        for method, path, wanted, _ in ROUTES:
            found = tuple([await _ask(client, method, path, caller, {}) for caller in ("lan", "here")])
            assert found == wanted, (method, path)


async def test_routes_where_there_is_a_key_for_each_scope(tmp_path: Path) -> None:
    """Each key opens what it lists and no more; this machine is no exception."""
    secrets = made(tmp_path, *Scope)
    async with proxied(tmp_path) as (_, client):
        for method, path, _, wanted in ROUTES:
            found = tuple([await _ask(client, method, path, caller, secrets) for caller in CLOSED_COLUMNS])
            assert found == wanted, (method, path)


async def test_a_proxy_on_this_machine_makes_nobody_an_admin(tmp_path: Path) -> None:
    """One that nobody told the mirror of: what it brings comes from loopback, and is from anywhere."""
    async with proxied(tmp_path, security__trusted_proxies=()) as (_, client):
        for header in ("X_Forwarded_For", "Forwarded", "X_Real_IP"):
            for method, path in (("DELETE", "/mirror/cache"), ("GET", "/mirror/v1/keys")):
                answer = await ask(client, path, {header: "127.0.0.1"}, method=method)
                assert answer.status == 403, (header, path)
        assert (await client.get("/mirror/v1/keys")).status == 200


async def test_a_key_for_admins_leaves_pulling_open(tmp_path: Path) -> None:
    """Making the first one must not stop every Ollama of the network."""
    secrets = made(tmp_path, Scope.ADMIN)
    async with proxied(tmp_path) as (_, client):
        assert await _ask(client, "GET", MANIFEST, "lan", {}) == "in"
        assert await _ask(client, "GET", "/api/tags", "lan", {}) == "in"
        assert await _ask(client, "GET", "/mirror/v1/models", "lan", {}) == "in"
        assert await _ask(client, "DELETE", "/mirror/cache", "here", {}) == "401"
        assert await _ask(client, "DELETE", "/mirror/cache", "admin", secrets) == "in"


async def test_revoking_the_last_key_opens_nothing(tmp_path: Path) -> None:
    """Forgetting it does, and is asked about."""
    secrets = made(tmp_path, Scope.PULL)
    async with proxied(tmp_path) as (_, client):
        assert await _ask(client, "GET", MANIFEST, "pull", secrets) == "in"
        ended = await client.get("/mirror/v1/keys/pull", method="DELETE")
        assert ended.status == 200
        assert await _ask(client, "GET", MANIFEST, "pull", secrets) == "401"
        assert await _ask(client, "GET", MANIFEST, "lan", {}) == "401"
        forgotten = await client.get("/mirror/v1/keys/pull?forget=true", method="DELETE")
        assert json.loads(forgotten.body)["opens"] == ["pull"]
        assert await _ask(client, "GET", MANIFEST, "lan", {}) == "in"


async def test_a_broken_file_refuses_what_may_need_a_key(tmp_path: Path) -> None:
    """Until it is mended: health stays, so that a monitor sees the mirror and people its log."""
    secrets = made(tmp_path, Scope.API)
    async with proxied(tmp_path) as (_, client):
        assert await _ask(client, "GET", MANIFEST, "lan", {}) == "in"
        ring = Keyring(tmp_path / "state")
        ring.path.write_text("{")
        async with _looked_again(client):
            for path in (MANIFEST, "/api/tags", "/mirror/v1/models", "/mirror/v1/keys"):
                for caller in ("lan", "here", "api"):
                    assert await _ask(client, "GET", path, caller, secrets) == "503", (path, caller)
            assert await _ask(client, "GET", "/livez", "lan", {}) == "in"


@asynccontextmanager
async def _looked_again(client: Machine) -> AsyncIterator[None]:
    """Ask until the mirror has looked at its keys again, which it does each second."""

    async def refused() -> bool:
        return (await client.get("/v2/")).status == 503

    await eventually(refused)
    yield


async def test_each_face_says_no_in_its_own_words(tmp_path: Path) -> None:
    """Clients show the sentence only where they look for it."""
    made(tmp_path, Scope.PULL, Scope.API)
    async with proxied(tmp_path) as (mirror, client):
        manifest = await ask(client, MANIFEST, LAN)
        error = json.loads(manifest.body)["errors"][0]
        assert (manifest.status, error["code"]) == (401, "UNAUTHORIZED")
        assert "this needs a key that is good for pull" in error["message"]
        host = mirror.url.removeprefix("http://")
        assert manifest.headers["WWW-Authenticate"] == (
            f'Bearer realm="http://{host}/v2/token",service="mirror",scope="repository:library/m:pull"'
        )
        part = await client.get(BLOB, Range="bytes=0-9")
        assert (part.status, part.body) == (401, b""), "Ollama would write a body into the blob"
        assert "this needs a key" in part.headers["X-Mirror-Error"]
        native = await client.get("/api/tags")
        assert (native.status, list(json.loads(native.body))) == (401, ["error"])
        assert native.headers["WWW-Authenticate"] == 'Bearer realm="mirror"'
        openai = json.loads((await client.get("/v1/models")).body)["error"]
        assert (openai["type"], openai["code"]) == ("invalid_request_error", None)
        anthropic = json.loads((await client.get("/v1/messages", method="POST")).body)
        assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "authentication_error")
        problem = await client.get("/mirror/v1/models")
        assert problem.headers["Content-Type"].startswith("application/problem+json")
        page = await client.get("/", Accept="text/html")
        assert page.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_key_may_come_as_a_password(tmp_path: Path) -> None:
    """docker, skopeo, oras and browsers know user and password only; the user does not matter."""
    secrets = made(tmp_path, Scope.PULL)
    said = base64.b64encode(f"anybody:{secrets['pull']}".encode()).decode()
    async with proxied(tmp_path) as (_, client):
        for header, status in ((f"Basic {said}", 200), (f"basic  {said}", 200), ("Basic !", 401), ("Basic", 401)):
            assert (await client.get("/v2/", Authorization=header)).status == status, header


async def test_an_authorization_that_is_unknown_is_ignored_where_nothing_needs_one(tmp_path: Path) -> None:
    """Old Ollamas always send one; and a chat that has some key set must not fail for it."""
    async with proxied(tmp_path) as (_, client):
        for _ in range(30):
            assert (await client.get("/v2/", Authorization="Bearer aHR0cHM6:PUB:SIG")).status == 200
        assert (await client.get("/api/tags", Authorization="Bearer none")).status == 200


async def test_wrong_keys_are_bounded_and_a_right_one_is_not(tmp_path: Path) -> None:
    """The key of the settings may be a word: after ten wrong ones not even the right one is told from them."""
    secrets = made(tmp_path, Scope.API)
    async with proxied(tmp_path, security__api_key="word") as (_, client):
        assert (await client.get("/api/tags", Authorization="Bearer word")).status == 200
        found = [(await client.get("/api/tags", Authorization=f"Bearer {at}")).status for at in range(11)]
        assert found == [401] * 10 + [429]
        last = await client.get("/api/tags", Authorization="Bearer word")
        assert last.status == 429
        assert 0 < int(last.headers["Retry-After"]) <= 60
        assert (await client.get("/api/tags", Authorization=f"Bearer {secrets['api']}")).status == 200
        assert (await ask(client, "/api/tags", {"Authorization": "Bearer word", **LAN})).status == 200, (
            "another machine"
        )


async def test_requests_are_limited_by_client(tmp_path: Path) -> None:
    """And what is not counted is not: sixteen ranges of a blob are one pull."""
    secrets = made(tmp_path, Scope.ADMIN)
    limits = {"security__rate_limit_requests": 3, "security__rate_limit_window": "1h"}
    async with proxied(tmp_path, **limits) as (_, client):
        shapes = (
            ("/api/tags", "error"),
            (MANIFEST, "errors"),
            ("/v1/models", "error"),
            ("/mirror/v1/models", "detail"),
            ("/v2/token", "errors"),
        )
        for at, (path, key) in enumerate(shapes):
            caller = {"X_Forwarded_For": f"192.168.7.{at}"}
            found = [await ask(client, path, caller) for _ in range(4)]
            assert [one.status for one in found].count(429) == 1, path
            assert found[3].status == 429
            assert int(found[3].headers["Retry-After"]) in range(1, 1202)
            assert key in json.loads(found[3].body)
            assert (await ask(client, BLOB, caller, method="HEAD")).status != 429
            for free in ("/", "/livez", "/readyz", "/mirror/ca.pem", "/metrics"):
                assert (await ask(client, free, caller)).status != 429, free
        key_of = {"Authorization": f"Bearer {secrets['admin']}"}
        found = [await ask(client, "/api/tags", {"X_Forwarded_For": f"10.1.1.{at}", **key_of}) for at in range(4)]
        assert [one.status for one in found] == [200, 200, 200, 429], "a key is counted wherever it comes from"
