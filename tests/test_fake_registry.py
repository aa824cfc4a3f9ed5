"""The fakes themselves: each fault does what it says, and the programs that stand beside them run."""

import asyncio
import base64
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from mirror.demo.model import DemoModel, write_model
from mirror.demo.ollama import MissingLocation, pull, pull_tensor
from mirror.values import Digest, Manifest
from tests.fakes import EMPTY_BODY, Fault, Wrong
from tests.fakes.docker_registry import running_docker_registry, skip_without
from tests.fakes.pouring import LEFT
from tests.fakes.push import make_oci_image, push_model
from tests.fakes.registry import FakeRegistry, running_fake_registry

CONTENT = bytes(range(250)) * 1000
SIZE = len(CONTENT)
LAYERS = {"application/vnd.ollama.image.model": CONTENT}
BLOB = Digest.of(CONTENT)
BLOB_PATH = f"/v2/library/m/blobs/{BLOB}"
MANIFEST_PATH = "/v2/library/m/manifests/latest"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer read to its end; ``broken`` if that was not the end it announced."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: bool


class Client:
    """Asks, with a connection of its own for each request."""

    def __init__(self, fake: FakeRegistry, session: aiohttp.ClientSession) -> None:
        self._fake = fake
        self.session = session

    async def get(self, path: str = BLOB_PATH, span: str | None = None, **headers: str) -> Answer:
        """GET, redirects not followed, what arrives of the body kept."""
        asked = headers | ({"Range": f"bytes={span}"} if span else {})
        async with self.session.get(URL(self._fake.url).join(URL(path)), headers=asked, allow_redirects=False) as got:
            body, broken = b"", False
            try:
                async for chunk in got.content.iter_any():
                    body += chunk
            except aiohttp.ClientError:
                broken = True
            return Answer(got.status, got.headers, body, broken)


@asynccontextmanager
async def serving(
    *, redirects: bool = False, valid_uses: int | None = None
) -> AsyncIterator[tuple[FakeRegistry, Client]]:
    """A fake that holds library/m, and a client of it."""
    async with (
        running_fake_registry(redirects=redirects, valid_uses=valid_uses) as fake,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        fake.add_model("library/m", LAYERS)
        yield fake, Client(fake, session)


async def test_without_faults_it_is_a_registry() -> None:
    """Both pulls of Ollama's succeed from it."""
    async with running_fake_registry() as fake:
        manifest = fake.add_model("library/m:tag", LAYERS)
        report = await pull(fake.url, "m:tag", part_min=10_000)
        assert report.manifest == manifest
        assert fake.blob_bytes_sent(BLOB) == SIZE
        assert fake.blob_bytes_sent() == report.bytes
        await pull_tensor(fake.url, "m:tag")
        assert fake.blob_bytes_sent(BLOB) == 2 * SIZE


async def test_serving_blobs_itself_it_is_a_plain_registry() -> None:
    """Ollama finds no Location in it; docker's clients find what they look for."""
    async with serving() as (fake, client):
        with pytest.raises(MissingLocation):
            await pull(fake.url, "m")
        assert (await client.get("/v2/")).status == 200
        manifest = await client.get(MANIFEST_PATH)
        digest = manifest.headers["Docker-Content-Digest"]
        assert Digest.of(manifest.body) == Digest.parse(digest)
        assert (await client.get(f"/v2/library/m/manifests/{digest}")).body == manifest.body
        assert (await client.get("/v2/library/m/manifests/no")).status == 404
        assert (await client.get(f"/v2/library/m/blobs/sha256:{'0' * 64}")).status == 404
        part = await client.get(span="10-19")
        assert (part.status, part.headers["Content-Range"], part.body) == (206, f"bytes 10-19/{SIZE}", CONTENT[10:20])


async def test_it_logs_requests_with_range_status_and_bytes() -> None:
    """Tests ask the log what a mirror did upstream."""
    async with serving() as (fake, client):
        await client.get(span="10-19", **{"User-Agent": "me"})
        await client.get("/v2/library/m/tags/list")
        await client.session.head(fake.url + MANIFEST_PATH)
        await fake.wait_for(lambda: len(fake.log) == 3 and fake.log[-1].status is not None)
        first, second, third = fake.log
        assert (first.method, first.path, first.kind) == ("GET", BLOB_PATH, "blob")
        assert (first.range, first.status, first.sent) == ("bytes=10-19", 206, 10)
        assert first.headers["User-Agent"] == "me"
        assert (second.kind, second.status) == ("other", 404)
        assert (third.kind, third.status) == ("head", 200)
        assert fake.asked("blob") == [first]


async def test_a_fault_happens_as_often_as_it_is_set_for_and_only_where() -> None:
    """The second attempt of a mirror is what a test is about."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.STATUS, "manifest", times=2, value=500, text="oh"))
        answers = [await client.get(path) for path in (MANIFEST_PATH, BLOB_PATH, MANIFEST_PATH, MANIFEST_PATH)]
        assert [answer.status for answer in answers] == [500, 200, 500, 200]
        assert answers[0].body == b"oh"
        fake.faults.add(Fault(Wrong.STATUS, BLOB, value=404))
        other = fake.add_blob(b"other")
        assert [(await client.get()).status for _ in range(3)] == [404] * 3
        assert (await client.get(f"/v2/library/m/blobs/{other}")).status == 200
        fake.faults.clear()
        assert (await client.get()).status == 200


async def test_kinds_of_requests_are_told_apart() -> None:
    """In redirecting mode the request that is redirected is not the one with the bytes."""
    async with serving(redirects=True) as (fake, client):
        fake.faults.add(Fault(Wrong.STATUS, "blob", times=1, value=403))
        redirect = await client.get()
        assert redirect.status == 307
        assert (await client.get(redirect.headers["Location"])).status == 403
        assert (await client.get(redirect.headers["Location"])).status == 200
        fake.faults.add(Fault(Wrong.STATUS, "redirect", times=1, value=404))
        assert (await client.get()).status == 404
        fake.faults.add(Fault(Wrong.STATUS, "head", value=405))
        async with client.session.head(fake.url + MANIFEST_PATH) as answer:
            assert answer.status == 405
        assert (await client.get(MANIFEST_PATH)).status == 200


async def test_slow_sends_so_many_bytes_a_second() -> None:
    """Half a second's worth takes at least nearly that."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.SLOW, value=100_000))
        began = time.monotonic()
        assert (await client.get(span="0-19999")).body == CONTENT[:20_000]
        assert 0.15 < time.monotonic() - began < 5


async def test_delay_waits_before_the_headers() -> None:
    """A mirror that holds its own headers until then makes Ollama give up."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.DELAY, "manifest", value=0.1))
        began = time.monotonic()
        assert (await client.get(MANIFEST_PATH)).status == 200
        assert time.monotonic() - began >= 0.1


async def test_stall_sends_nothing_more_until_released() -> None:
    """The bytes before it have gone out, the request is not over."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.STALL, BLOB, times=1, value=1000))
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(client.get(span="500-4999"))
            await fake.wait_for(lambda: fake.blob_bytes_sent(BLOB) == 1000)
            assert fake.log[-1].status is None
            fake.release(BLOB)
        assert answer.result().body == CONTENT[500:5000]


async def test_a_client_that_leaves_a_stalled_answer_ends_it() -> None:
    """The log says how far it came."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.STALL, value=1000))
        async with client.session.get(fake.url + BLOB_PATH) as answer:
            await answer.content.readexactly(1000)
            answer.close()
        await fake.wait_for(lambda: fake.log[-1].status is not None)
        assert (fake.log[-1].status, fake.log[-1].sent) == (200, 1000)


async def test_a_client_that_leaves_before_the_answer_is_logged_as_such() -> None:
    """It has no status of its own."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.DELAY, value=60))
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.get())
            await fake.wait_for(lambda: bool(fake.log))
            asking.cancel()
        await fake.wait_for(lambda: fake.log[-1].status == LEFT)


async def test_hold_keeps_back_the_bytes_from_an_offset_on() -> None:
    """Ranges before it are served, those over it up to it, until released."""
    async with serving() as (fake, client):
        fake.hold(BLOB, 2000)
        assert (await client.get(span="0-1999")).body == CONTENT[:2000]
        async with asyncio.TaskGroup() as group:
            over = group.create_task(client.get(span="1000-2999"))
            beyond = group.create_task(client.get(span="5000-5999"))
            await fake.wait_for(lambda: fake.blob_bytes_sent(BLOB) == 3000 and len(fake.log) == 3)
            assert [entry.status for entry in fake.log] == [206, None, None]
            fake.release(BLOB)
        assert over.result().body == CONTENT[1000:3000]
        assert beyond.result().body == CONTENT[5000:6000]


async def test_cut_resets_the_connection_after_so_many_bytes() -> None:
    """An answer too short to come so far is left alone, and does not count as a time."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.CUT, times=1, value=1000))
        assert (await client.get(span="0-999")).broken is False
        cut = await client.get(span="0-1999")
        assert cut.broken is True
        assert CONTENT.startswith(cut.body)
        assert fake.log[-1].sent == 1000
        assert (await client.get(span="0-1999")).body == CONTENT[:2000]


async def test_corrupt_inverts_one_byte_each_time_it_is_sent() -> None:
    """The offset is the blob's, whatever range is asked for."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.CORRUPT, BLOB, times=1, value=150_000))
        fake.faults.add(Fault(Wrong.CORRUPT, BLOB, times=2, value=150_002))
        assert (await client.get(span="0-149999")).body == CONTENT[:150_000]
        bodies = [(await client.get(span="149999-150002")).body for _ in range(3)]
        true = CONTENT[149_999:150_003]
        assert bodies[0] == bytes([true[0], true[1] ^ 0xFF, true[2], true[3] ^ 0xFF])
        assert bodies[1] == bytes([*true[:3], true[3] ^ 0xFF])
        assert bodies[2] == true


@pytest.mark.parametrize(("off", "length", "broken"), [(-10, 90, False), (10, 100, True)])
async def test_a_wrong_length_is_announced(off: int, length: int, broken: bool) -> None:
    """Too small ends the answer early, as does too large, but that breaks the connection."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.LENGTH, value=off))
        answer = await client.get(span="0-99")
        assert answer.headers["Content-Length"] == str(100 + off)
        assert (answer.body, answer.broken) == (CONTENT[:length], broken)


async def test_a_wrong_range_is_announced_and_a_range_ignored() -> None:
    """What a mirror must check before it believes the bytes."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.RANGE, times=1, value=5))
        moved = await client.get(span="0-99")
        assert (moved.headers["Content-Range"], moved.body) == (f"bytes 5-104/{SIZE}", CONTENT[:100])
        fake.faults.add(Fault(Wrong.WHOLE, times=1))
        whole = await client.get(span="100-199")
        assert (whole.status, "Content-Range" in whole.headers, whole.body) == (200, False, CONTENT)


async def test_busy_says_when_to_come_back() -> None:
    """Retry-After is in seconds, or whatever the test says."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.BUSY, "any", times=1, text="7"))
        busy = await client.get()
        assert (busy.status, busy.headers["Retry-After"]) == (429, "7")
        assert (await client.get()).status == 200


async def test_manifest_headers_can_be_wrong() -> None:
    """registry.ollama.ai calls its manifests text/plain."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.TYPE, "manifest", text="text/plain; charset=utf-8"))
        fake.faults.add(Fault(Wrong.DIGEST, "manifest"))
        headers = (await client.get(MANIFEST_PATH)).headers
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert headers["Docker-Content-Digest"] == f"sha256:{'0' * 64}"
        assert headers["Ollama-Content-Digest"] == "0" * 64


async def test_a_redirect_can_lead_anywhere() -> None:
    """A mirror must not be led to its own neighbours."""
    async with serving(redirects=True) as (fake, client):
        fake.faults.add(Fault(Wrong.REDIRECT, "redirect", text="http://192.0.2.1/x"))
        answer = await client.get()
        assert (answer.status, answer.headers["Location"]) == (307, "http://192.0.2.1/x")


async def test_an_address_is_used_up() -> None:
    """By count; a new one is good again."""
    async with serving(redirects=True, valid_uses=2) as (_, client):
        location = (await client.get()).headers["Location"]
        assert [(await client.get(location)).status for _ in range(3)] == [200, 200, 403]
        assert (await client.get((await client.get()).headers["Location"])).status == 200


async def test_gone_is_404_or_no_connection_and_it_comes_back() -> None:
    """On the same port, with open connections reset."""
    async with serving() as (fake, client):
        url = fake.url
        fake.faults.add(Fault(Wrong.STALL, times=1, value=1000))
        async with asyncio.TaskGroup() as group:
            open_answer = group.create_task(client.get())
            await fake.wait_for(lambda: fake.blob_bytes_sent() == 1000)
            await fake.stop_listening()
        assert open_answer.result().broken
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get()
        await fake.listen()
        assert fake.url == url
        assert (await client.get()).status == 200
        fake.forget(BLOB)
        assert (await client.get()).status == 404


async def test_a_challenge_is_met_by_an_anonymous_token() -> None:
    """As Docker Hub has it."""
    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.CHALLENGE, "any", text="anonymous"))
        refused = await client.get(MANIFEST_PATH)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"] == (
            f'Bearer realm="{fake.url}/token/anonymous",service="fake",scope="repository:library/m:pull"'
        )
        token = json.loads((await client.get("/token/anonymous?service=fake")).body)["token"]
        assert (await client.get(MANIFEST_PATH, Authorization=f"Bearer {token}")).status == 200
        assert (await client.get(MANIFEST_PATH, Authorization="Bearer other")).status == 401


async def test_a_challenge_may_want_a_signature() -> None:
    """As registry.ollama.ai has it for private models: over the exact URL, fresh, and once."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()

    async def ask(client: Client, fake: FakeRegistry, query: str, signed: str) -> int:
        text = f"GET,{fake.url}/token/signed?{signed},{EMPTY_BODY}"
        signature = base64.b64encode(key.sign(text.encode())).decode()
        return (await client.get(f"/token/signed?{query}", Authorization=f"{public}:{signature}")).status

    async with serving() as (fake, client):
        fake.faults.add(Fault(Wrong.CHALLENGE, "manifest", text="signed"))
        assert "/token/signed" in (await client.get(MANIFEST_PATH)).headers["WWW-Authenticate"]
        good, old = f"nonce=a&ts={int(time.time())}", f"nonce=b&ts={int(time.time()) - 3600}"
        assert await ask(client, fake, good, old) == 401
        assert await ask(client, fake, good, good) == 200
        assert await ask(client, fake, good, good) == 401
        assert await ask(client, fake, old, old) == 401
        assert (await client.get("/token/signed?nonce=c")).status == 401


async def test_it_runs_as_a_program_that_takes_faults_over_http(tmp_path: Path) -> None:
    """For benchmarks, and tests of whole processes."""
    model = write_model(tmp_path, size=10_000)
    options = ("-m", "tests.fakes.registry", "--port", "0", "--folder", str(tmp_path))
    process = await asyncio.create_subprocess_exec(sys.executable, *options, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession(url, raise_for_status=True) as session:
            fault = {"wrong": "status", "to": "manifest", "value": 500}
            async with session.post("/faults", json=fault):
                pass
            with pytest.raises(aiohttp.ClientResponseError, match="500"):
                await session.get("/v2/library/demo/manifests/latest")
            async with session.delete("/faults"):
                pass
            assert (await pull(url, "demo")).bytes == model.size
            async with session.get("/log") as log:
                assert (await log.json())[0]["status"] == 500
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
def model(tmp_path: Path) -> DemoModel:
    """A model with weights of a few parts."""
    return write_model(tmp_path / "model", size=2_500_000)


@skip_without("docker-registry")
async def test_docker_registry_filled_by_the_pusher_serves_the_model_by_range(model: DemoModel, tmp_path: Path) -> None:
    """An independent registry agrees with our reading of the protocol."""
    async with running_docker_registry(tmp_path) as url, aiohttp.ClientSession(url) as session:
        manifest = await push_model(url, model, "library/pushed:v1", part_bytes=1_000_000)
        assert manifest.raw == model.manifest
        headers = {"Accept": manifest.media_type}
        async with session.get("/v2/library/pushed/manifests/v1", headers=headers) as answer:
            assert await answer.read() == model.manifest
        path = f"/v2/library/pushed/blobs/{model.blobs[0].digest}"
        async with session.get(path, headers={"Range": "bytes=999000-1000999"}) as answer:
            assert answer.status == 206
            assert await answer.read() == model.path(model.blobs[0].digest).read_bytes()[999_000:1_001_000]
        with pytest.raises(MissingLocation):
            await pull(url, "pushed:v1")
        assert (await pull_tensor(url, "pushed:v1")).manifest.raw == model.manifest
        assert await push_model(url, model, "library/pushed:v2") == manifest
        # A folder does as well as the model.
        assert await push_model(url, model.folder, "library/demo:latest") == manifest


@skip_without("docker-registry", "skopeo")
async def test_skopeo_copies_the_small_image_into_docker_registry(tmp_path: Path) -> None:
    """Containers go through the mirror too; their tools must believe the image."""
    image = make_oci_image(tmp_path / "image", tag="one")
    async with running_docker_registry(tmp_path) as url, aiohttp.ClientSession(url) as session:
        target = f"docker://{url.removeprefix('http://')}/team/image:one"
        options = ("--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false")
        process = await asyncio.create_subprocess_exec("skopeo", *options, f"oci:{tmp_path}/image:one", target)
        assert await process.wait() == 0
        async with session.get("/v2/team/image/manifests/one", headers={"Accept": image.media_type}) as answer:
            assert Manifest.parse(await answer.read()).layers == image.layers
    assert all(200_000 < layer.size < 400_000 for layer in image.layers)


def test_a_missing_program_is_named_by_the_skip() -> None:
    """Nobody should wonder why fewer tests ran."""
    mark = skip_without("sh", "no-such-program").mark
    assert mark.args == (True,)
    assert "no-such-program" in mark.kwargs["reason"]
    assert skip_without("sh").mark.args == (False,)
