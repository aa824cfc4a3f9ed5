"""Several upstreams: which one a request means, what each is told, and that a blob of two is kept once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mirror.config import FurtherUpstream
from mirror.errors import SettingsError
from mirror.events import Events
from mirror.upstream import Upstreams
from mirror.upstream.routes import Routes
from mirror.values import Digest, ModelName
from tests.fakes import Fault, Wrong
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.net import free_port
from tests.process import mirror as command
from tests.support import MANIFEST, Machine, add_blob, blob_path, machine, mirrored, settings, until, written

HUB = FurtherUpstream(
    name="hub", url="http://hub", hosts=("hub.lan", "www.hub.lan:81"), namespaces=("team-*", "bob"), ports=(8001,)
)
HF = FurtherUpstream(name="huggingface")  # type: ignore[call-arg]  # the name brings the rest
ROUTES = Routes("registry.ollama.ai", [HUB, HF])


@pytest.mark.parametrize(
    ("host", "port", "namespace", "means"),
    [
        ("registry.ollama.ai", 11434, "library", "registry.ollama.ai"),
        ("mirror.lan:11434", 11434, "library", "registry.ollama.ai"),
        ("hub.lan", 11434, "library", "hub.lan"),
        ("HUB.lan.:443", 11434, "library", "hub.lan"),
        ("www.hub.lan:81", 11434, "library", "hub.lan"),
        ("www.hub.lan", 11434, "library", "registry.ollama.ai"),
        ("huggingface.co", 11434, "team-a", "hf.co"),
        ("mirror.lan:8001", 8001, "library", "hub.lan"),
        ("hf.co", 8001, "library", "hf.co"),
        ("registry.ollama.ai:8001", 8001, "bob", "registry.ollama.ai"),
        ("mirror.lan", 11434, "Team-A", "hub.lan"),
        ("mirror.lan", 0, "bobby", "registry.ollama.ai"),
        ("[::1]:11434", 11434, "library", "registry.ollama.ai"),
        ("", 0, "", "registry.ollama.ai"),
    ],
)
def test_what_a_request_means(host: str, port: int, namespace: str, means: str) -> None:
    """The host it names decides, then the port it came in at, then its namespace."""
    assert ROUTES.host(host, port, namespace) == means


def test_the_hosts_of_one_upstream_are_one_place() -> None:
    """A model is not kept twice because one writes hf.co and another huggingface.co."""
    name = ModelName.parse("HuggingFace.co/me/m:Q4")
    assert str(ROUTES.filed(name)) == "hf.co/me/m:Q4"
    for text in ("m", "elsewhere.lan/me/m", "HF.co/me/m"):
        assert ROUTES.filed(ModelName.parse(text)) == ModelName.parse(text)


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ([FurtherUpstream(name="a", url="http://a", hosts=("Registry.Ollama.ai",))], "is the host of upstream already"),
        ([HUB, FurtherUpstream(name="a", url="http://a", hosts=("a",), ports=(8001,))], "port 8001 is there twice"),
    ],
)
def test_two_upstreams_cannot_have_the_same_place(further: list[FurtherUpstream], said: str) -> None:
    """Which of them is asked would be a matter of luck."""
    with pytest.raises(SettingsError, match=said):
        Routes("registry.ollama.ai", further)


@dataclass(frozen=True, slots=True)
class Two:
    """A mirror of two registries."""

    client: Machine
    main: FakeRegistry
    hub: FakeRegistry


@asynccontextmanager
async def two(folder: Path, further: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[Two]:
    """Both have a model of the same name; the second registry is hub.lan, and has the namespace team too."""
    async with AsyncExitStack() as stack:
        main, hub = [await stack.enter_async_context(running_fake_registry()) for _ in range(2)]
        told = {"name": "hub", "url": hub.url, "hosts": ["hub.lan"], "namespaces": ["team"], **(further or {})}
        changes = {"upstreams": [told], **changes}
        _, client = await stack.enter_async_context(mirrored(folder, main, **changes))
        yield Two(client, main, hub)


async def prefetched(client: Machine, name: str) -> bytes:
    """Have a model fetched; returns the lines of progress."""
    async with client.session.post(client.url("/mirror/v1/pulls"), json={"name": name}) as reply:
        return await reply.read()


async def test_each_host_has_models_of_its_own(tmp_path: Path) -> None:
    """The same name means another model at another registry, by host and by namespace, cold and warm."""
    async with two(tmp_path) as there:
        mine, _ = add_blob(there.main, 1000, seed=1)
        theirs, _ = add_blob(there.hub, 1000, seed=2)
        team, _ = add_blob(there.hub, 1000, "team/m:latest", seed=3)
        for _ in range(2):
            for content, host, repository in (
                (mine, "registry.ollama.ai", "library/m"),
                (theirs, "hub.lan", "library/m"),
                (team, "127.0.0.1", "team/m"),
            ):
                path = f"/v2/{repository}/manifests/latest"
                assert Digest.of(content).hex in (await there.client.get(path, Host=host)).body.decode()
                got = await there.client.get(blob_path(Digest.of(content), repository), Host=host)
                assert got.body == content
        for name in ("library/m", "hub.lan/library/m", "hub.lan/team/m"):
            assert b'"success"' in await prefetched(there.client, name)
        assert (await there.client.get("/v2/_catalog", Host="hub.lan")).body.count(b"/m") == 2
        assert (await there.client.get("/v2/_catalog")).body.count(b"/m") == 1
        assert (await there.client.get("/v2/library/m/tags/list", Host="hub.lan")).status == 200
    tree = {path for path in written(tmp_path) if "/manifests/" in path}
    assert {path.split("/")[2] for path in tree} == {"registry.ollama.ai", "hub.lan"}


async def test_a_port_of_its_own(tmp_path: Path) -> None:
    """For clients that can name nothing but the mirror, and namespaces that both registries have."""
    one, other = free_port(), free_port()
    addresses = [f"127.0.0.1:{one}", f"127.0.0.1:{other}"]
    async with two(tmp_path, {"ports": [other]}, listen__addresses=addresses) as there:
        add_blob(there.main, 1000, seed=1)
        theirs, _ = add_blob(there.hub, 1000, seed=2)
        async with machine(f"http://127.0.0.1:{other}") as client:
            assert Digest.of(theirs).hex in (await client.get(MANIFEST)).body.decode()
        assert Digest.of(theirs).hex not in (await there.client.get(MANIFEST)).body.decode()


async def test_a_blob_of_two_upstreams_is_fetched_and_kept_once(tmp_path: Path) -> None:
    """Bytes are known by their digest, wherever they came from."""
    async with two(tmp_path) as there:
        content, digest = add_blob(there.main, 100_000)
        add_blob(there.hub, 100_000)
        first = await there.client.get(blob_path(digest))
        second = await there.client.get(blob_path(digest), Host="hub.lan")
        assert (first.body, second.body, second.cache) == (content, content, "HIT")
        assert not there.hub.asked("blob")
        assert there.hub.blob_bytes_sent() == 0


async def test_one_that_is_down_says_nothing_of_the_other(tmp_path: Path) -> None:
    """What is remembered of an upstream is remembered of it alone."""
    async with two(tmp_path, cache__manifest_ttl=0) as there:
        add_blob(there.main, 1000)
        add_blob(there.hub, 1000)
        for host in ("registry.ollama.ai", "hub.lan"):
            await there.client.get(MANIFEST, Host=host)
        there.hub.faults.add(Fault(Wrong.STATUS, "manifest", value=503, times=100))
        assert (await there.client.get(MANIFEST, Host="hub.lan")).cache == "STALE"
        assert (await there.client.get(MANIFEST, Host="registry.ollama.ai")).cache == "HIT"


async def test_credentials_go_to_their_own_upstream_alone(tmp_path: Path) -> None:
    """Neither the other registry nor where blobs are redirected to hears of a token."""
    file = tmp_path / "token"
    file.write_text("hub-secret\n")
    async with two(tmp_path, {"token_file": str(file)}, upstream__token="main-secret") as there:
        for fake, host, seed in ((there.main, "registry.ollama.ai", 1), (there.hub, "hub.lan", 2)):
            content, digest = add_blob(fake, 100_000, seed=seed)
            await there.client.get(MANIFEST, Host=host)
            assert (await there.client.get(blob_path(digest), Host=host)).body == content
        for fake, own, other in ((there.main, "main-secret", "hub-secret"), (there.hub, "hub-secret", "main-secret")):
            said = [entry.headers.get("Authorization") for entry in fake.log if entry.kind in ("manifest", "redirect")]
            assert said == [f"Bearer {own}"] * len(said)
            assert not any(other in str(entry.headers) for entry in fake.log)
            assert all("Authorization" not in entry.headers for entry in fake.log if entry.kind == "blob")


async def test_a_login_gets_tokens(tmp_path: Path) -> None:
    """As docker login's user and password do, at registries that give tokens to users."""
    async with running_fake_registry() as fake:
        login = {"upstream__username": "mirror", "upstream__password": "pass-word"}
        async with mirrored(tmp_path, fake, **login) as (_, client):
            add_blob(fake, 1000)
            fake.faults.add(Fault(Wrong.CHALLENGE, "manifest", text="anonymous"))
            assert (await client.get(MANIFEST)).status == 200
        first, *_ = fake.asked("token")
        assert first.headers["Authorization"] == "Basic bWlycm9yOnBhc3Mtd29yZA=="
        assert fake.asked("manifest")[-1].headers["Authorization"].startswith("Bearer ")


async def test_the_hugging_face_token_is_for_hugging_face(tmp_path: Path) -> None:
    """HF_TOKEN is in many environments; a list that points the name elsewhere must not send it there."""
    elsewhere = FurtherUpstream(name="huggingface", url="https://hf.example")  # type: ignore[call-arg]
    for further, token in ((HF, "hf_secret"), (elsewhere, None)):
        said = settings(tmp_path, "http://127.0.0.1:9", hf_token="hf_secret")
        opened = Upstreams(said.upstream, [further], said.hf_token, tmp_path / "key", Events())
        try:
            found = opened.of(ModelName.parse("hf.co/me/m")).settings.token
            assert (found.get_secret_value() if found else None) == token
            assert opened.main.settings.token is None
        finally:
            await opened.close()


async def test_a_token_file_that_cannot_be_read_is_said_at_the_start(tmp_path: Path) -> None:
    """Not at the first pull in the night."""
    told = {"name": "hub", "url": "http://127.0.0.1:9", "hosts": ["hub.lan"], "token_file": str(tmp_path / "none")}
    config = tmp_path / "config.yaml"
    config.write_text(f"upstreams: [{told}]\ncache: {{directory: {tmp_path / 'store'}}}\nserver: {{port: 0}}\n")
    ended = await command("serve", "--config", str(config))
    assert ended.code == 2
    assert "upstreams.hub.token_file: there is no token to be read from it" in ended.err


async def test_a_prefetch_by_another_host_of_an_upstream(tmp_path: Path) -> None:
    """It is kept where a pull by the first host finds it."""
    async with two(tmp_path, {"hosts": ["hub.lan", "www.hub.lan"]}) as there:
        content, digest = add_blob(there.hub, 1000)
        assert b'"success"' in await prefetched(there.client, "www.hub.lan/library/m")
        there.hub.forget(digest)
        got = await there.client.get(blob_path(digest), Host="hub.lan")
        assert (got.body, got.cache) == (content, "HIT")


@asynccontextmanager
async def liar(size: int) -> AsyncIterator[str]:
    """A registry that says of every blob that it has ``size`` bytes, and lets one of them out."""
    gate = asyncio.Event()

    async def blob(request: web.Request) -> web.StreamResponse:
        first, _, last = request.headers["Range"].partition("=")[2].partition("-")
        stop = min(int(last) + 1, size)
        response = web.StreamResponse(status=206, headers={"Content-Range": f"bytes {first}-{stop - 1}/{size}"})
        response.content_length = stop - int(first)
        await response.prepare(request)
        await response.write(b"x")
        if response.content_length > 1:
            await gate.wait()
        return response

    app = web.Application()
    app.router.add_get("/v2/{name:.+}/blobs/{digest}", blob)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        gate.set()
        await runner.cleanup()


@pytest.mark.parametrize("size", [100_000, 10])
async def test_a_further_upstream_cannot_hold_up_the_blobs_of_the_main_one(size: int, tmp_path: Path) -> None:
    """It may be anybody's; who asks for a model of the main one gets the bytes from there, and all of them."""
    async with running_fake_registry() as fake, liar(size) as url:
        content, digest = add_blob(fake, 100_000)
        told = [{"name": "liar", "url": url, "hosts": ["liar.lan"]}]
        async with mirrored(tmp_path, fake, upstreams=told) as (mirror, client), asyncio.TaskGroup() as group:
            held = group.create_task(client.get(blob_path(digest), Host="liar.lan"))
            await until(mirror, lambda: mirror.parts.fills.running(digest) is not None)
            await client.manifest()
            assert (await client.get(blob_path(digest))).body == content
            held.cancel()


async def test_a_wrong_size_in_a_manifest_throws_nothing_away(tmp_path: Path) -> None:
    """What has come of a blob stays, whatever another model says of it; the upstream is asked who is right."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, 3_000_000)
        fake.hold(digest, offset=2_000_000)
        async with mirrored(tmp_path, fake) as (mirror, client), asyncio.TaskGroup() as group:
            await client.manifest()
            asked = group.create_task(client.get(blob_path(digest)))
            await until(
                mirror, lambda: (fill := mirror.parts.fills.running(digest)) is not None and fill.here > 500_000
            )
            asked.cancel()
        fake.release(digest)
        wrong = {"mediaType": "application/vnd.ollama.image.model", "digest": str(digest), "size": 1}
        fake.add_manifest("library/wrong:latest", json.dumps({"schemaVersion": 2, "layers": [wrong]}).encode())
        sent = fake.blob_bytes_sent(digest)
        async with mirrored(tmp_path, fake) as (_, client):
            await client.manifest("/v2/library/wrong/manifests/latest")
            await client.get(blob_path(digest, "library/wrong"))
            assert (await client.get(blob_path(digest))).body == content
        assert fake.blob_bytes_sent(digest) - sent < 2_600_000
