"""Every way into the mirror, on one port, with programs that know nothing of it."""

import asyncio
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest

from mirror.app import running_mirror
from mirror.demo.ollama import pull
from mirror.listen import Authority, Names
from mirror.values import ByteRange, Manifest
from tests.fakes.docker_registry import skip_without
from tests.fakes.registry import running_fake_registry
from tests.process import run
from tests.support import MANIFEST, add_blob, blob_path, machine, mirrored, settings
from tests.ways import HOST, WAYS, Doors, doors, tls_socket

SIZE = 3_000_000


async def said_to(port: int, request: bytes) -> bytes:
    """Send bytes and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("way", WAYS)
async def test_curl_gets_manifest_and_ranges_cold_and_warm(way: str, tmp_path: Path) -> None:
    """The first answer fills the store meanwhile, the second comes from it; both byte for byte."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        content, digest = add_blob(fake, SIZE)
        out = tmp_path / "out"
        assert b"layers" in await there.get(way, MANIFEST, out)
        for _ in range(2):
            cut = await there.get(way, blob_path(digest), out, "--range", "1234-2500000")
            assert cut == content[1234:2_500_001]
            assert await there.get(way, blob_path(digest), out) == content
        assert await there.get(way, blob_path(digest), out, "--range", f"{SIZE - 1}-") == content[-1:]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_ollama_pulls_through_the_proxy(scheme: str, tmp_path: Path) -> None:
    """The Location of a blob leads its part requests back through the proxy, under the name that was asked for."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        content, _ = add_blob(fake, SIZE)
        connector = aiohttp.TCPConnector(ssl=there.context())
        async with aiohttp.ClientSession(connector=connector, proxy=there.mirror.url) as session:
            report = await pull(f"{scheme}://{HOST}", "library/m:latest", tmp_path / "in", session=session)
    assert report.bytes > len(content)
    assert {one.url.partition("/v2/")[0] for one in report.requests} == {f"{scheme}://{HOST}"}


async def test_a_range_by_tls_comes_while_the_blob_is_filled(tmp_path: Path) -> None:
    """What is there goes out by TLS while the rest is held up above."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        content, digest = add_blob(fake, SIZE)
        fake.hold(digest, 2_000_000)
        url = there.mirror.url.replace("http", "https")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=there.context())) as session:
            asked = session.get(f"{url}{blob_path(digest)}", headers={"Range": "bytes=0-2999999"})
            async with asyncio.timeout(20), asked as answer:
                begun = await answer.content.readexactly(1_000_000)
                fake.release(digest)
                rest = await answer.content.readexactly(2_000_000)
        assert (begun + rest, answer.headers["X-Mirror-Cache"]) == (content, "MISS")


@pytest.mark.parametrize("target", ["http://example.org/v2/", f"http://{HOST}.example.org/v2/", "http://10.9.8.7/v2/"])
async def test_a_request_for_another_host_is_refused(target: str, tmp_path: Path) -> None:
    """The mirror is no open proxy."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        answer = await said_to(
            there.port, f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"not mirrored here" in answer


async def test_a_request_for_the_mirrors_own_name_is_answered(tmp_path: Path) -> None:
    """An Ollama with HTTP_PROXY set asks for MIRROR/library/m by the proxy as well."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, server__public_url="http://Models.LAN") as there:
        for host in ("models.lan", "localhost", f"127.0.0.1:{there.port}", HOST.upper()):
            head = f"GET http://{host}/v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            assert (await said_to(there.port, head.encode())).startswith(b"HTTP/1.1 200 "), host


async def test_the_letters_of_a_method_may_come_one_by_one(tmp_path: Path) -> None:
    """Some methods begin as CONNECT does; a head may come in as many packets as it has bytes."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        for head, answer in (
            (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200 "),
            (b"COPY /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"HTTP/1.1 405 "),
            (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", b"HTTP/1.1 403 "),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
            for at in range(len(head)):
                writer.write(head[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0)
            assert (await reader.readline()).startswith(answer)
            writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"CONNECT  HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT registry.ollama.ai HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT registry.ollama.ai:0 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT registry.ollama.ai:99999 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT http://registry.ollama.ai:443/ HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", 403),
        (b"CONNECT " + b"a" * 40_000 + b":443 HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_connect_elsewhere_is_refused_with_a_sentence(head: bytes, status: int, tmp_path: Path) -> None:
    """And with a length, so that any client shows it."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        writer.write(head)
        assert (await reader.readline()).split()[1] == str(status).encode()
        writer.close()


async def test_connect_without_a_ca_says_what_to_do(tmp_path: Path) -> None:
    """Once it is made the same mirror goes on with it, and without a CA TLS ends in an alert."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        port = client.url("").port or 0
        connect = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        assert b"mirror tls init" in await said_to(port, connect)
        assert (await client.get("/mirror/ca.pem")).status == 404
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            await tls_socket(port, ssl.create_default_context())
        made = await run(
            sys.executable, "-m", "mirror", "tls", "init", "--store", str(tmp_path / "store"),
            env={"OLLAMA_MIRROR_CACHE_STATE": str(tmp_path / "state")},
        )  # fmt: skip
        assert made.code == 0, made.err
        given = await client.get("/mirror/ca.pem")
        assert given.body == (tmp_path / "state" / "tls" / "ca.pem").read_bytes()
        agreed = await tls_socket(port, ssl.create_default_context(cadata=given.body.decode()), HOST)
        assert agreed.version() == "TLSv1.3"


async def test_several_addresses_serve_the_same(tmp_path: Path) -> None:
    """One of them by IPv6; what is listed takes the place of server.host and server.port."""
    addresses = ("127.0.0.1:0", "[::1]:0", "127.0.0.2:0")
    async with running_fake_registry() as fake:
        said = settings(tmp_path, fake.url, server__port=1, listen__addresses=addresses)
        async with running_mirror(said) as mirror:
            _, digest = add_blob(fake, SIZE)
            assert len(mirror.urls) == 3
            for url in mirror.urls:
                async with machine(url) as client:
                    assert (await client.get(blob_path(digest), ByteRange(0, 5))).status == 206
            assert mirror.urls[1].startswith("http://[::1]:")


async def test_tls_offers_http_1_1_and_refuses_other_names(tmp_path: Path) -> None:
    """Go asks for HTTP/2 first; a name that is not ours gets no certificate."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        context = there.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        assert (await tls_socket(there.port, context, HOST)).selected_alpn_protocol() == "http/1.1"
        with pytest.raises(OSError):  # noqa: PT011  # SSLError or a reset: asyncio may not get its alert out
            await tls_socket(there.port, context, "example.org")


async def test_a_ca_older_than_a_host_says_so(tmp_path: Path) -> None:
    """Its name constraints are of the day it was made: a leaf for the new host would be believed by nobody."""
    async with running_fake_registry() as fake:
        Authority.make(tmp_path / "state", Names.of(settings(tmp_path, fake.url, upstreams=[])))
        async with running_mirror(settings(tmp_path, fake.url)) as mirror:
            port = int(mirror.url.rpartition(":")[2])
            answer = await said_to(port, b"CONNECT hf.co:443 HTTP/1.1\r\nHost: hf.co:443\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"no certificate for hf.co" in answer
    assert b"mirror tls renew" in answer


async def test_a_tunnel_that_is_listed_goes_past_the_mirror(tmp_path: Path) -> None:
    """Who needs the rest of a mirrored host's web site lists it; nothing of it is answered here then."""
    async with running_fake_registry() as fake:
        port = int(fake.url.rpartition(":")[2])
        async with doors(tmp_path, fake, listen__tunnel=[f"127.0.0.1:{port}"]) as there:
            reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
            writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                writer.write(b"GET /v2/library/gone/manifests/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b" 404 " in await reader.read()
            writer.close()
            await writer.wait_closed()
        assert [entry.headers.get("Via") for entry in fake.asked("manifest")] == [None]


@skip_without("skopeo")
async def test_skopeo_trusts_the_ca(tmp_path: Path) -> None:
    """A client of registries that nobody of us wrote, by TLS, with the CA in a folder as it wants it."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        add_blob(fake, 1000)
        trusted, nobody = tmp_path / "trusted", tmp_path / "nobody"
        trusted.mkdir()
        nobody.mkdir()
        (trusted / "ca.crt").write_bytes(there.ca.read_bytes())
        image = f"docker://127.0.0.1:{there.port}/library/m:latest"
        done = await run("skopeo", "inspect", "--raw", "--cert-dir", str(trusted), image)
        assert (done.code, Manifest.parse(done.out.strip().encode()).digest) == (0, (await manifest_of(there)).digest)
        assert (await run("skopeo", "inspect", "--raw", "--cert-dir", str(nobody), image)).code != 0


async def manifest_of(there: Doors) -> Manifest:
    """The manifest as any client gets it."""
    async with machine(there.mirror.url) as client:
        return await client.manifest()
