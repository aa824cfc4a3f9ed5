"""Manifests from registries as they are, on good days and on others."""

import time
from email.utils import formatdate
from pathlib import Path

import pytest

from mirror.demo.model import DemoModel, write_model
from mirror.demo.registry import running_registry
from mirror.errors import (
    MirrorError,
    NotFoundUpstream,
    RateLimited,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamUnavailable,
)
from mirror.values import Digest, Manifest
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.net import answering
from tests.support import add_blob, upstream

NAME = "library/m"


@pytest.fixture
def model(tmp_path: Path) -> DemoModel:
    """A model on the disk of a registry."""
    return write_model(tmp_path / "registry", size=300_000, name=NAME)


async def test_answers_like_those_of_ollamas_registry_are_understood(model: DemoModel, tmp_path: Path) -> None:
    """text/plain, no Docker-Content-Digest, no /v2/, no HEAD: others say 404 to all of it."""
    async with running_registry(model.folder) as registry, upstream(tmp_path, registry.url) as up:
        manifest = await up.manifest(NAME, "latest")
        located = await up.locate(NAME, manifest.layers[0].digest, manifest.layers[0].size)

        assert manifest == Manifest.parse(model.manifest)
        assert await up.answers()
        assert located.ranged
        assert located.url.host == "localhost"
        assert registry.counters.requests["other"] == 1, "only /v2/, which it does not have"


async def test_plain_registries_are_understood_too(tmp_path: Path) -> None:
    """Those that give blobs away themselves."""
    async with running_fake_registry(redirects=False) as fake, upstream(tmp_path, fake.url) as up:
        content, digest = add_blob(fake, 1000)
        assert (await up.manifest(NAME, "latest")).layers[0].digest == digest
        assert (await up.locate(NAME, digest, None)).size == len(content)


async def test_upstream_is_told_who_asks_and_asked_for_no_compression(tmp_path: Path) -> None:
    """Some answers depend on Ollama's version, and a compressed blob is another blob."""
    async with (
        running_fake_registry() as fake,
        upstream(tmp_path, fake.url, user_agent="ollama/9.9.9 (x) Go/go2") as up,
    ):
        _, digest = add_blob(fake, 1000)
        await up.manifest(NAME, "latest")
        await up.locate(NAME, digest, 1000)

        assert {entry.headers["User-Agent"] for entry in fake.log} == {"ollama/9.9.9 (x) Go/go2"}
        assert {entry.headers["Accept-Encoding"] for entry in fake.log} == {"identity"}
        assert "application/vnd.oci.image.index.v1+json" in fake.log[0].headers["Accept"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Wrong.STATUS, "manifest", times=2, value=500),
        Fault(Wrong.STATUS, "manifest", times=1, value=503),
        Fault(Wrong.STATUS, "manifest", times=1, value=408),
        Fault(Wrong.BUSY, "manifest", times=1, text="0"),
        Fault(Wrong.BUSY, "manifest", times=1, text="Wed, 21 Oct 2015 07:28:00 GMT"),
        Fault(Wrong.BUSY, "manifest", times=1, text="nonsense"),
        Fault(Wrong.DELAY, "manifest", times=1, value=0.8),
        Fault(Wrong.DIGEST, "manifest", times=1),
    ],
    ids=lambda fault: f"{fault.wrong}-{fault.value}-{fault.text}",
)
async def test_what_may_pass_is_asked_again(fault: Fault, tmp_path: Path) -> None:
    """A pull must not fail because of one bad second."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url) as up:
        add_blob(fake, 1000)
        fake.faults.add(fault)
        assert (await up.manifest(NAME, "latest")).layers
        assert len(fake.log) == 1 + (fault.times or 0)


@pytest.mark.parametrize(
    ("fault", "error", "asked"),
    [
        (Fault(Wrong.STATUS, "manifest", value=500), UpstreamUnavailable, 4),
        (Fault(Wrong.STATUS, "manifest", value=404), NotFoundUpstream, 1),
        (Fault(Wrong.STATUS, "manifest", value=410), NotFoundUpstream, 1),
        (Fault(Wrong.STATUS, "manifest", value=412), UpstreamRefused, 1),
        (Fault(Wrong.STATUS, "manifest", value=418), UpstreamRefused, 1),
        (Fault(Wrong.BUSY, "manifest", text="3600"), RateLimited, 1),
        (Fault(Wrong.BUSY, "manifest", text="0"), RateLimited, 4),
        (Fault(Wrong.DIGEST, "manifest"), UpstreamMisbehaved, 4),
    ],
    ids=lambda value: f"{value.wrong}-{value.value}" if isinstance(value, Fault) else None,
)
async def test_what_does_not_pass_is_said_plainly(
    fault: Fault, error: type[MirrorError], asked: int, tmp_path: Path
) -> None:
    """Everybody else says that there is no such manifest; an hour is nobody's patience."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url) as up:
        add_blob(fake, 1000)
        fake.faults.add(fault)
        with pytest.raises(error, match="manifest library/m:latest"):
            await up.manifest(NAME, "latest")
        assert len(fake.log) == asked


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_is_kept_to(as_date: bool, tmp_path: Path) -> None:
    """In seconds and as a date; whoever does not is limited for longer."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url) as up:
        add_blob(fake, 1000)
        said = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
        fake.faults.add(Fault(Wrong.BUSY, "manifest", times=1, text=said))
        begun = time.monotonic()
        await up.manifest(NAME, "latest")
        assert 0.9 <= time.monotonic() - begun < 3


async def test_retry_after_is_told_to_whoever_asked(tmp_path: Path) -> None:
    """The mirror's own client can wait for as long."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url) as up:
        add_blob(fake, 1000)
        fake.faults.add(Fault(Wrong.BUSY, "manifest", text="3600"))
        with pytest.raises(RateLimited) as caught:
            await up.manifest(NAME, "latest")
        assert caught.value.retry_after_s == 3600


async def test_with_a_stored_copy_at_hand_it_is_asked_once_and_briefly(tmp_path: Path) -> None:
    """Also where the token dance takes several requests: the time is that of all of them."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url, stale_timeout=0.3) as up:
        add_blob(fake, 1000)
        fake.faults.add(Fault(Wrong.CHALLENGE, "manifest"))
        fake.faults.add(Fault(Wrong.DELAY, "manifest", value=0.2))
        begun = time.monotonic()
        with pytest.raises(UpstreamUnavailable, match="no answer in time"):
            await up.manifest(NAME, "latest", brief=True)
        assert time.monotonic() - begun < 1


async def test_a_manifest_asked_by_digest_is_the_one_of_that_digest(tmp_path: Path) -> None:
    """Nothing else would be noticed later."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url, retry_attempts=0) as up:
        add_blob(fake, 1000)
        manifest = await up.manifest(NAME, "latest")
        assert await up.manifest(NAME, str(manifest.digest)) == manifest
        other = f"sha256:{'1' * 64}"
        fake._manifests[NAME, other] = manifest.raw
        with pytest.raises(UpstreamMisbehaved, match=f"{other} was promised"):
            await up.manifest(NAME, other)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>captive portal</html>", b"[]", b'{"layers": 3}', b"\xff\xfe", b"{}", b'{"layers":[{"size":-1}]}'],
)
async def test_what_is_no_manifest_is_not_taken_for_one(body: bytes, tmp_path: Path) -> None:
    """Wireless networks answer anything with a page."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with answering(answer) as (url, _), upstream(tmp_path, url, retry_attempts=0) as up:
        with pytest.raises(UpstreamMisbehaved, match="manifest"):
            await up.manifest(NAME, "latest")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", UpstreamUnavailable),
        (b"SSH-2.0-x\r\n\r\n", UpstreamUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", UpstreamUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 17000000\r\n\r\n" + b" " * 17_000_000, UpstreamMisbehaved),
        (b"HTTP/1.1 307 x\r\nContent-Length: 0\r\n\r\n", UpstreamMisbehaved),
    ],
    ids=["nothing", "another protocol", "short", "endless", "nowhere"],
)
async def test_what_breaks_the_protocol_is_an_error_of_the_upstream(
    answer: bytes, error: type[MirrorError], tmp_path: Path
) -> None:
    """And never one of ours."""
    async with answering(answer) as (url, _), upstream(tmp_path, url, retry_attempts=0) as up:
        with pytest.raises(error):
            await up.manifest(NAME, "latest")


async def test_nobody_there_is_an_error_of_the_upstream(tmp_path: Path) -> None:
    """Port closed, or a name that does not resolve."""
    async with running_fake_registry() as fake:
        gone = fake.url
    for url in (gone, "http://no-such-host.invalid"):
        async with upstream(tmp_path, url, retry_attempts=0) as up:
            assert not await up.answers()
            with pytest.raises(UpstreamUnavailable):
                await up.manifest(NAME, "latest")


async def test_a_path_prefix_of_the_upstream_is_kept(tmp_path: Path) -> None:
    """Registries behind a gateway have one."""
    answer = b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer) as (url, heads), upstream(tmp_path, f"{url}/hub/") as up:
        with pytest.raises(NotFoundUpstream):
            await up.locate("a/b", Digest("0" * 64), None)
    assert heads[0].startswith(b"GET /hub/v2/a/b/blobs/sha256:000")
