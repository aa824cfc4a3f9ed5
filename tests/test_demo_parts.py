"""The demo's own parts: the made-up model, the registry that gives it out, the client that pulls it."""

import asyncio
import re
import signal
import struct
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mirror.demo.model import MODEL_TYPE, DemoModel, write_model
from mirror.demo.ollama import MissingLocation, PullFailed, PullReport, pull, pull_tensor
from mirror.demo.registry import running_app, running_registry
from mirror.errors import DigestMismatch
from mirror.values import Digest, Manifest
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry

SIZE = 3_000_000
LAYERS = {MODEL_TYPE: bytes(range(256)) * 400, "application/vnd.ollama.image.license": b"free"}


@pytest.fixture
def model(tmp_path: Path) -> DemoModel:
    """A model with weights of SIZE bytes."""
    return write_model(tmp_path / "model", size=SIZE)


def assert_same_blobs(into: Path, model: DemoModel) -> None:
    """What was pulled is what there was, under its final names only."""
    assert {path.name: path.read_bytes() for path in (into / "blobs").iterdir()} == {
        blob.digest.filename: model.path(blob.digest).read_bytes() for blob in model.blobs
    }


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    """Two runs of a demo, or of a benchmark, can be compared."""
    first, again, other = (
        write_model(tmp_path / name, size=5_000_000, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.manifest == again.manifest != other.manifest
    assert first.blobs[0].digest != other.blobs[0].digest


def test_every_file_is_named_by_its_digest_and_has_the_size_the_manifest_says(tmp_path: Path) -> None:
    """A registry can serve the folder as it is, and nothing unfinished is left in it."""
    heard: list[int] = []
    model = write_model(tmp_path, size=9_000_001, name="ns/m", tag="t", progress=heard.append)
    for blob in model.blobs:
        content = model.path(blob.digest).read_bytes()
        assert (sha256(content).hexdigest(), len(content)) == (blob.digest.hex, blob.size)
    assert len(list((tmp_path / "blobs").iterdir())) == len(model.blobs)
    assert sum(heard) == model.size
    assert (tmp_path / "manifests/ns/m/t").read_bytes() == model.manifest
    assert model.blobs[0].size == 9_000_001


def test_the_weights_begin_as_a_gguf_file_whose_one_tensor_ends_with_the_file(model: DemoModel) -> None:
    """What reads the header of a model, such as the mirror's list, finds one."""
    head = model.path(model.blobs[0].digest).read_bytes()[:4096]
    magic, version, tensors, values = struct.unpack_from("<4sIQQ", head)
    assert (magic, version, tensors) == (b"GGUF", 3, 1)
    assert values > 0
    assert b"general.architecture" in head
    dimensions_at = head.index(b"token_embd.weight") + len(b"token_embd.weight") + 4
    (elements,) = struct.unpack_from("<Q", head, dimensions_at)
    assert (SIZE - elements) % 32 == 0
    assert 0 < SIZE - elements < 1024


@pytest.mark.parametrize("size", [0, 1, 100])
def test_weights_smaller_than_a_header_have_the_size_asked_for(tmp_path: Path, size: int) -> None:
    """Tests of edges want tiny blobs."""
    assert write_model(tmp_path, size=size).blobs[0].size == size


async def test_the_registry_answers_as_ollama_com_does(model: DemoModel) -> None:
    """A mirror proven on the demo registry is proven on its oddities."""
    async with running_registry(model.folder) as registry, aiohttp.ClientSession(registry.url) as session:
        manifests = "/v2/library/demo/manifests/latest"
        async with session.get(manifests) as answer:
            assert await answer.read() == model.manifest
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert answer.headers["Ollama-Content-Digest"] == Digest.of(model.manifest).hex
            assert "Docker-Content-Digest" not in answer.headers
        async with session.head(manifests) as answer:
            assert answer.status == 405
        for path in ("/v2/", "/v2/library/demo/tags/list", "/v2/_catalog", "/v2/library/demo/manifests/other"):
            async with session.get(path) as answer:
                assert answer.status == 404
        for path in ("/v2/library/demo/blobs/sha256:" + "0" * 64, "/v2/library/demo/blobs/x"):
            async with session.get(path) as answer:
                assert answer.status == 404


async def test_a_blob_is_a_redirect_to_another_host_name_which_serves_exact_ranges(model: DemoModel) -> None:
    """Ollama's classic path stands on the other host name, its parts on the range."""
    blob = model.blobs[0]
    async with running_registry(model.folder) as registry, aiohttp.ClientSession(registry.url) as session:
        path = f"/v2/library/demo/blobs/{blob.digest}"
        async with session.head(path, allow_redirects=False) as answer:
            assert answer.status == 307
        async with session.get(path, allow_redirects=False) as answer:
            assert answer.status == 307
            location = answer.headers["Location"]
        assert location.startswith(registry.url.replace("127.0.0.1", "localhost") + "/signed/")
        async with session.get(location, headers={"Range": "bytes=1000-2999999"}) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == f"bytes 1000-2999999/{SIZE}"
            assert await answer.read() == model.path(blob.digest).read_bytes()[1000:]
        assert registry.counters.blob_bytes == registry.counters.bytes_of[blob.digest] == SIZE - 1000
        async with session.get(location, headers={"Range": f"bytes={SIZE}-"}) as answer:
            assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
        async with session.head(location) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(SIZE))


async def test_an_expired_or_altered_address_is_refused(model: DemoModel) -> None:
    """A mirror must learn to resolve again; it can only if the refusal is real."""
    clock = [1000.0]
    async with (
        running_registry(model.folder, valid_s=60, now=lambda: clock[0]) as registry,
        aiohttp.ClientSession(registry.url) as session,
    ):
        path = f"/v2/library/demo/blobs/{model.blobs[1].digest}"
        async with session.get(path, allow_redirects=False) as answer:
            location = answer.headers["Location"]
        statuses = []
        for url, seconds in ((location, 1059), (location, 1060), (location + "0", 1000), (location[:60], 1000)):
            clock[0] = seconds
            async with session.get(url) as answer:
                statuses.append(answer.status)
        assert statuses == [200, 403, 403, 404]


async def test_a_dropped_connection_counts_only_what_went_out(tmp_path: Path) -> None:
    """The demo shows what a mirror saved: it may not flatter it."""
    model = write_model(tmp_path, size=64 << 20)
    async with (
        running_registry(tmp_path) as registry,
        aiohttp.ClientSession(registry.url) as session,
        session.get(f"/v2/library/demo/blobs/{model.blobs[0].digest}") as answer,
    ):
        assert await answer.content.readexactly(1000)
        answer.close()
    assert 1000 <= registry.counters.blob_bytes < 32 << 20


async def test_pull_brings_every_byte_in_ranges(model: DemoModel, tmp_path: Path) -> None:
    """The client is a fair judge: HEAD, un-ranged GET, then parts, for each blob in turn."""
    heard: list[int] = []
    async with running_registry(model.folder) as registry:
        report = await pull(
            registry.url, "demo", tmp_path / "into", part_min=200_000, part_max=500_000, progress=heard.append
        )
    assert_same_blobs(tmp_path / "into", model)
    host = registry.url.removeprefix("http://")
    assert (tmp_path / "into/manifests" / host / "library/demo/latest").read_bytes() == model.manifest
    assert report.bytes == sum(heard) == registry.counters.blob_bytes == model.size
    assert report.manifest.raw == model.manifest
    assert [(one.method, one.range is not None) for one in report.requests[:4]] == [
        ("GET", False),
        ("HEAD", False),
        ("GET", False),
        ("GET", True),
    ]
    assert sum(one.range is not None for one in report.requests) == 15 + len(model.blobs) - 1


async def test_pull_skips_what_it_has_and_leaves_nothing_without_a_folder(model: DemoModel, tmp_path: Path) -> None:
    """A finished blob is trusted, as Ollama trusts it."""
    async with running_registry(model.folder) as registry:
        await pull(registry.url, "demo", tmp_path / "into")
        again = await pull(registry.url, "demo", tmp_path / "into")
        assert (again.bytes, len(again.requests)) == (0, 1)
        async with aiohttp.ClientSession() as session:
            report = await pull(registry.url, "library/demo:latest", session=session)
        assert report.bytes == model.size


async def test_pull_refuses_a_registry_without_location(model: DemoModel) -> None:
    """This is why a plain docker-registry is no source for Ollama, and what the mirror must do better."""
    async with running_registry(model.folder, blob_host=None) as registry:
        with pytest.raises(MissingLocation, match=r"^http: no Location header in response$"):
            await pull(registry.url, "demo")


async def test_pull_says_what_ollama_says_of_a_missing_model(model: DemoModel) -> None:
    """Its command line looks for this very text."""
    async with running_registry(model.folder) as registry:
        with pytest.raises(PullFailed, match=r"^pull model manifest: file does not exist$"):
            await pull(registry.url, "nothing")


async def pulled_from_answer(status: int, location: str | None) -> PullReport:
    """Pull a model whose un-ranged GETs are answered thus; ranges are had at any path."""
    content = b"x" * 1000
    digest = Digest.of(content)
    raw = Manifest.parse(f'{{"layers":[{{"digest":"{digest}","size":1000,"mediaType":"{MODEL_TYPE}"}}]}}'.encode()).raw

    async def manifest(request: web.Request) -> web.Response:
        return web.Response(body=raw)

    async def blob(request: web.Request) -> web.Response:
        if request.method == "HEAD" or "Range" in request.headers:
            return web.Response(body=content, headers={"X-Mirror-Cache": "hit"})
        return web.Response(status=status, headers={"Location": location.format(request)} if location else {})

    app = web.Application()
    app.router.add_get("/v2/library/m/manifests/latest", manifest)
    app.router.add_get("/{path:.*}", blob)
    async with running_app(app) as url:
        return await pull(url, "m", probe_s=0.3)


@pytest.mark.parametrize(
    ("status", "location"),
    [(200, "/elsewhere"), (200, "{0.path}?ticket=1"), (307, "http://localhost:{0.url.port}/there")],
)
async def test_pull_accepts_the_answers_ollama_accepts(status: int, location: str) -> None:
    """A Location with 200, also a relative one, or 307 to another host name."""
    report = await pulled_from_answer(status, location)
    assert report.bytes == 1000
    assert report.x_mirror_cache == Counter(hit=2)


@pytest.mark.parametrize(
    ("status", "location", "text"),
    [
        (200, None, "http: no Location header in response"),
        (307, None, "http: no Location header in response"),
        (302, "http://localhost:{0.url.port}/there", "unexpected status code 302"),
        (308, "http://localhost:{0.url.port}/there", "unexpected status code 308"),
        (204, "/there", "unexpected status code 204"),
        (307, "/v2/library/m/blobs/itself", "context deadline exceeded"),
        (503, None, "context deadline exceeded"),
    ],
)
async def test_pull_refuses_the_answers_ollama_refuses(status: int, location: str | None, text: str) -> None:
    """A mirror that passes with this client passes with the real one."""
    with pytest.raises(PullFailed, match=f"^{text}$"):
        await pulled_from_answer(status, location)


async def test_pull_goes_on_where_a_part_broke_off() -> None:
    """Bytes that came are kept and not fetched again; a reset costs one more request."""
    async with running_fake_registry() as fake:
        weights = fake.add_model("library/m", LAYERS).layers[0]
        fake.faults.add(Fault(Wrong.CUT, weights.digest, times=2, value=40_000))
        report = await pull(fake.url, "m", pause_s=0)
        ranges = [one.range for one in report.requests if one.range and str(weights.digest) in one.url]
        assert len(ranges) == 3
        assert ranges[0] == "bytes=0-102399"
        assert report.bytes == weights.size + len(b"free") + report.manifest.blobs[-1].size


async def test_pull_tries_a_refused_part_six_times(tmp_path: Path) -> None:
    """An error's body counts for nothing: it neither lands in the blob nor ends the part."""
    async with running_fake_registry() as fake:
        blob = fake.add_model("library/m", LAYERS).layers[0].digest
        fake.faults.add(Fault(Wrong.STATUS, blob, times=5, value=500, text="no"))
        await pull(fake.url, "m", pause_s=0)
        fake.faults.add(Fault(Wrong.STATUS, blob, times=6, value=403, text="no"))
        with pytest.raises(PullFailed, match=r"^max retries exceeded: EOF$"):
            await pull(fake.url, "m", tmp_path, pause_s=0)
        assert not (tmp_path / "blobs" / blob.filename).exists()


async def test_pull_asks_again_for_a_part_that_stalls() -> None:
    """A silent connection is left; what it brought is not kept."""
    async with running_fake_registry() as fake:
        blob = fake.add_model("library/m", LAYERS).layers[0].digest
        fake.faults.add(Fault(Wrong.STALL, blob, times=1, value=1000))
        report = await pull(fake.url, "m", stall_s=0.2)
        assert [one.range for one in fake.log if str(blob) in one.path and one.range] == ["bytes=0-102399"] * 2
        assert report.bytes == 1000 + sum(map(len, LAYERS.values())) + report.manifest.blobs[-1].size


@pytest.mark.parametrize(
    ("wrong", "puller"), [(Wrong.CORRUPT, pull), (Wrong.WHOLE, pull), (Wrong.CORRUPT, pull_tensor)]
)
async def test_wrong_bytes_are_found_out(wrong: Wrong, puller: object, tmp_path: Path) -> None:
    """What does not hash to its name is deleted, and the model does not come to exist."""
    async with running_fake_registry() as fake:
        blob = fake.add_model("library/m", LAYERS).layers[0].digest
        fake.faults.add(Fault(wrong, blob, value=7))
        with pytest.raises(DigestMismatch):
            await pull(fake.url, "m", tmp_path, part_min=30_000)
        assert not (tmp_path / "blobs" / blob.filename).exists()
        assert not (tmp_path / "manifests").exists()


async def test_pull_tensor_gives_up_on_wrong_bytes(tmp_path: Path) -> None:
    """It hashes while it fetches, and tries six times."""
    async with running_fake_registry() as fake:
        blob = fake.add_model("library/m", LAYERS).layers[0].digest
        fake.faults.add(Fault(Wrong.CORRUPT, blob, value=7))
        with pytest.raises(PullFailed, match=r"^max retries exceeded: digest mismatch"):
            await pull_tensor(fake.url, "m", tmp_path, pause_s=0)
        assert len([one for one in fake.log if one.kind == "blob" and str(blob) in one.path]) == 6
        assert not (tmp_path / "blobs" / blob.filename).exists()


async def test_pull_tensor_brings_every_byte_once_where_redirected_and_twice_where_not(
    model: DemoModel, tmp_path: Path
) -> None:
    """The tensor path reads the first answer to its end for nothing, unless it leads to another host."""
    for blob_host, times in (("localhost", 1), (None, 2)):
        async with running_registry(model.folder, blob_host=blob_host) as registry:
            report = await pull_tensor(registry.url, "demo", tmp_path / str(times))
        assert_same_blobs(tmp_path / str(times), model)
        assert report.bytes == registry.counters.blob_bytes == times * model.size
        assert {one.method for one in report.requests} == {"GET"}


async def test_pull_tensor_resumes_a_large_blob_by_an_open_range() -> None:
    """Small ones begin anew."""
    async with running_fake_registry() as fake:
        weights = fake.add_model("library/m", LAYERS).layers[0]
        fake.faults.add(Fault(Wrong.LENGTH, weights.digest, times=1, value=-60_000))
        report = await pull_tensor(fake.url, "m", pause_s=0, resume_min=1)
        assert report.bytes == sum(map(len, LAYERS.values())) + report.manifest.blobs[-1].size
        assert [one.range for one in fake.log if one.range] == [f"bytes={weights.size - 60_000}-"]


async def test_a_demo_that_is_kept_can_be_watched_from_the_start() -> None:
    """Its home page moves while the first pull comes in; Ctrl-C ends it."""
    command = (sys.executable, "-m", "mirror", "demo", "--keep", "--size", "60MB")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            url = (await process.stdout.readline()).decode().rpartition(" ")[2].strip()
            seen = set[str]()
            async with aiohttp.ClientSession() as session:
                while len(seen) < 3:
                    async with session.get(url, headers={"Accept": "text/html"}) as answer:
                        seen.update(re.findall(r'<progress value="(\d+)" max="\d{7,}"', await answer.text()))
                    await asyncio.sleep(0.05)
            while b"ollama pull" not in await process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
