"""The way to an upstream: proxies and trust, as the environment has it."""

import asyncio
import ssl
from pathlib import Path

import pytest
from yarl import URL

from mirror.errors import UpstreamMisbehaved, UpstreamUnavailable
from mirror.upstream import Address, Transfer
from mirror.upstream.connections import proxy_for
from mirror.upstream.tls import client_context
from mirror.values import ByteRange
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.net import answering, certificates, forward_proxy, listening, narrow_front, tls_front
from tests.support import SOON_S, add_blob, carried, upstream

NAME = "library/m"
SIZE = 600_000
SPAN = ByteRange(1000, 400_000)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxy or CA this machine uses is not ours to test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def whole_model(fake: FakeRegistry, url: str, folder: Path, **changes: object) -> None:
    """Fetch a manifest and its blob by way of ``url``."""
    content, digest = add_blob(fake, SIZE)
    got = bytearray(SIZE)
    async with upstream(folder, url, **changes) as up:
        assert (await up.manifest(NAME, "latest")).layers[0].digest == digest
        await carried(up, await up.locate(NAME, digest, SIZE), got)
        async with up.stream(await up.locate(NAME, digest, SIZE), SPAN) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == content[SPAN.start : SPAN.stop]
    assert got == content


async def test_http_proxy_carries_plain_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests, redirects and bulk bytes alike, as absolute URLs; names are the proxy's to resolve."""
    async with running_fake_registry() as fake, forward_proxy() as (proxy, heads):
        monkeypatch.setenv("http_proxy", proxy)
        port = URL(fake.url).port
        await whole_model(fake, f"http://registry.example:{port}", tmp_path, private_redirects="allow")
    targets = [head.split()[1].decode() for head in heads]
    assert targets[0] == f"http://registry.example:{port}/v2/library/m/manifests/latest"
    assert {URL(target).host for target in targets} == {"registry.example", "localhost"}
    assert all(head.startswith(b"GET http://") for head in heads)


async def test_proxy_credentials_go_to_the_proxy_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in its URL."""
    async with running_fake_registry(redirects=False) as fake, forward_proxy() as (proxy, heads):
        monkeypatch.setenv("HTTP_PROXY", proxy.replace("://", "://me:pa%20ss@"))
        await whole_model(fake, fake.url, tmp_path)
    assert all(b"Proxy-Authorization: Basic bWU6cGEgc3M=\r\n" in head for head in heads)
    assert "Authorization" not in {name for entry in fake.log for name in entry.headers}


async def test_no_proxy_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries of one's own network are not reached through the company's proxy."""
    async with running_fake_registry() as fake, forward_proxy() as (proxy, heads):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        await whole_model(fake, fake.url, tmp_path)
    assert heads == []


async def test_https_goes_through_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy sees host and port, and nothing else."""
    ca, tls = certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    async with (
        running_fake_registry(redirects=False) as fake,
        tls_front(fake.url, tls) as url,
        forward_proxy() as (proxy, heads),
    ):
        monkeypatch.setenv("https_proxy", proxy.replace("://", "://me:pw@"))
        await whole_model(fake, url, tmp_path)
        port = URL(url).port
    assert {head.split(b" HTTP")[0] for head in heads} == {f"CONNECT localhost:{port}".encode()}
    assert all(b"Proxy-Authorization: Basic bWU6cHc=\r\n" in head for head in heads)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 x\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n", b""])
async def test_a_proxy_that_refuses_is_an_error_of_the_upstream(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For small answers and for bulk bytes; the mirror lives on."""
    ca, tls = certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    async with running_fake_registry(redirects=False) as fake, tls_front(fake.url, tls) as url:
        _, digest = add_blob(fake, SIZE)
        async with upstream(tmp_path, url) as up:
            located = await up.locate(NAME, digest, SIZE)
        async with answering(answer) as (proxy, _):
            monkeypatch.setenv("https_proxy", proxy)
            async with upstream(tmp_path, url, retry_attempts=0) as up:
                with pytest.raises(UpstreamUnavailable):
                    await up.manifest(NAME, "latest")
                through = type(located)(located.url, SIZE, {}, URL(proxy))
                with pytest.raises(UpstreamUnavailable):
                    await carried(up, through, bytearray(SIZE))


@pytest.mark.parametrize("named", [True, False])
async def test_the_environments_ca_is_trusted(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Companies that look into TLS have one of their own, whatever it leaves out, with every version of Python."""
    ca, tls = certificates(tmp_path, named=named)
    async with running_fake_registry(redirects=False) as fake, tls_front(fake.url, tls) as url:
        with pytest.raises(UpstreamUnavailable, match="certificate"):
            await whole_model(fake, url, tmp_path, retry_attempts=0)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        await whole_model(fake, url, tmp_path)


async def test_another_hosts_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By threads as by the loop."""
    ca, tls = certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    async with running_fake_registry(redirects=False) as fake, tls_front(fake.url, tls) as url:
        _, digest = add_blob(fake, SIZE)
        async with upstream(tmp_path, url, retry_attempts=0) as up:
            located = await up.locate(NAME, digest, SIZE)
            other = type(located)(located.url.with_host("127.0.0.1"), SIZE, {})
            with pytest.raises(UpstreamUnavailable, match="certificate"):
                await carried(up, other, bytearray(SIZE))


async def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sits on the way could send what they like, and see what is asked."""
    ca, tls = certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    async with running_fake_registry() as fake, tls_front(fake.url, tls) as url:
        _, digest = add_blob(fake, SIZE)
        async with upstream(tmp_path, url, retry_attempts=0) as up:
            with pytest.raises(UpstreamMisbehaved, match="not encrypted"):
                await up.locate(NAME, digest, None)
        assert fake.asked("blob") == []


async def test_a_server_that_never_finishes_the_handshake_is_given_up(tmp_path: Path) -> None:
    """Within the time for connecting."""

    async def silent(head: bytes, *_: object) -> None:
        raise AssertionError(head)

    async with listening(silent) as port:
        url = f"https://localhost:{port}"
        async with upstream(tmp_path, url, connect_timeout=0.2, retry_attempts=0) as up:
            with pytest.raises(UpstreamUnavailable):
                await up.manifest(NAME, "latest")


def test_proxies_are_named_per_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without a scheme of their own; an empty variable is none."""
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    monkeypatch.setenv("http_proxy", "")
    monkeypatch.setenv("no_proxy", ".internal.example")

    assert proxy_for(URL("https://registry.example/")) == URL("http://proxy.example:3128")
    assert proxy_for(URL("http://registry.example/")) is None
    assert proxy_for(URL("https://a.internal.example/")) is None


def test_trust_is_in_the_systems_cas_when_nothing_else_is_said() -> None:
    """And never in anybody at all."""
    context = client_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_connections_that_stop_in_the_middle_of_a_record_hold_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few threads may gather at once, and none of them while it has to wait."""
    ca, tls = certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    async with running_fake_registry(redirects=False) as fake, tls_front(fake.url, tls) as url:
        content, digest = add_blob(fake, SIZE)
        async with (
            narrow_front(URL(url).port or 0, SIZE // 2 + 7) as (port, held, on),
            upstream(tmp_path, url, retry_attempts=0, stall_timeout=SOON_S) as up,
            asyncio.TaskGroup() as group,
        ):
            located = await up.locate(NAME, digest, SIZE)
            narrow = type(located)(located.url.with_port(port), SIZE, located.headers)
            got = [bytearray(SIZE) for _ in range(6)]
            late = [group.create_task(carried(up, narrow, into)) for into in got]
            await held.wait()
            await asyncio.sleep(0.2)
            into = bytearray(SIZE)
            await carried(up, located, into)
            assert into == content
            assert not any(one.done() for one in late)
            on.set()
    assert got == [content] * 6


async def test_bytes_that_came_with_the_head_wait_for_no_others(tmp_path: Path) -> None:
    """A reader gets them at once, however long the upstream takes for the next."""
    size, go, seen, loop = 100_000, asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    async def serve(_: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = f"Content-Range: bytes 0-{size - 1}/{size}\r\nContent-Length: {size}"
        head = f"HTTP/1.1 206 Partial Content\r\n{said}\r\n\r\n"
        writer.write(head.encode() + bytes(1000))
        await go.wait()
        writer.write(bytes(size - 1000))
        await writer.drain()

    def sink(_: int, _content: memoryview) -> None:
        loop.call_soon_threadsafe(seen.set)

    async with listening(serve) as port, upstream(tmp_path, f"http://127.0.0.1:{port}", stall_timeout=SOON_S) as up:
        address = Address(URL(f"http://127.0.0.1:{port}/blob"), size, {})
        async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
            group.create_task(up.carry(address, Transfer(ByteRange(0, size), sink, urgent=lambda: True)))
            await seen.wait()
            go.set()
