"""The data address: one redirect that serves both of Ollama's clients, and never leads a client astray."""

import re
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from mirror.demo.ollama import PullReport, pull, pull_tensor
from tests.fakes.registry import running_fake_registry
from tests.net import free_port
from tests.process import mirror as command
from tests.support import MANIFEST, add_blob, blob_path, machine, mirrored
from tests.ways import HOST, doors

DATA = "127.0.0.1:0"
SIZE = 3_000_000


def blob_bytes(report: PullReport) -> int:
    """How much the blobs of a model are together."""
    return sum(blob.size for blob in report.manifest.blobs)


def at_data(report: PullReport, main: str) -> list[str]:
    """The ports other than the mirror's own at which bodies were read."""
    return [one.method for one in report.requests if URL(one.url).port != URL(main).port]


async def test_a_tensor_pull_gets_every_byte_once(tmp_path: Path) -> None:
    """Its client reads the answer to its first GET to the end and throws it away, unless that is a redirect."""
    async with running_fake_registry() as fake:
        add_blob(fake, SIZE)
        (tmp_path / "a").mkdir()
        async with mirrored(tmp_path / "a", fake) as (mirror, _):
            twice = await pull_tensor(mirror.url, "library/m:latest", tmp_path / "a" / "in")
        async with mirrored(tmp_path, fake, listen__data=DATA) as (mirror, _):
            once = await pull_tensor(mirror.url, "library/m:latest", tmp_path / "b")
    assert once.bytes == blob_bytes(once)
    assert at_data(once, mirror.url)
    assert twice.bytes == 2 * blob_bytes(twice)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_classic_pull_follows_to_the_other_port(host: str, tmp_path: Path) -> None:
    """It goes along with a redirect to the same host name, and finds the Location that it wants there."""
    async with running_fake_registry() as fake:
        add_blob(fake, SIZE)
        async with mirrored(tmp_path, fake, listen__data=DATA) as (mirror, _):
            port = URL(mirror.url).port
            for folder in ("cold", "warm"):
                report = await pull(f"http://{host}:{port}", "library/m:latest", tmp_path / folder, part_min=500_000)
                assert report.bytes == blob_bytes(report)
                assert {one.range is None for one in report.requests if URL(one.url).port == port} == {True}
                assert at_data(report, mirror.url)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_pull_through_the_proxy_is_pointed_where_the_settings_say(scheme: str, tmp_path: Path) -> None:
    """To bytes by sendfile, though the client asked by TLS: 127.0.0.1 is another host name than the registry's."""
    data = f"127.0.0.1:{free_port()}"
    async with (
        running_fake_registry() as fake,
        doors(tmp_path, fake, listen__data=data, listen__data_url=f"http://{data}") as there,
    ):
        add_blob(fake, SIZE)
        connector = aiohttp.TCPConnector(ssl=there.context())
        async with aiohttp.ClientSession(connector=connector, proxy=there.mirror.url) as session:
            report = await pull(f"{scheme}://{HOST}", "library/m:latest", tmp_path / "in", session=session)
        assert report.bytes == blob_bytes(report)
        ranged = [URL(one.url) for one in report.requests if one.range is not None]
        assert {f"{url.host}:{url.port}" for url in ranged} == {data}


async def test_nobody_is_pointed_to_another_machine(tmp_path: Path) -> None:
    """Through a proxy the registry's name is the registry's: its port means nothing there."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__data=DATA) as there:
        content, digest = add_blob(fake, SIZE)
        for way in ("http proxy", "https proxy"):
            head = tmp_path / "head"
            assert await there.get(way, blob_path(digest), tmp_path / "out", "--dump-header", str(head)) == content
            assert f"Location: {blob_path(digest)}\n" in head.read_text()


@pytest.mark.parametrize("way", ["dns", "https dns"])
async def test_who_comes_by_dns_is_pointed_to_the_same_name(way: str, tmp_path: Path) -> None:
    """It is ours to this client: so tensor models, whose client knows no proxy, come once by this way too."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__data=DATA) as there:
        _, digest = add_blob(fake, SIZE)
        head = tmp_path / "head"
        await there.get(way, blob_path(digest), tmp_path / "out", "--dump-header", str(head))
        assert re.search(rf"\nLocation: http://{re.escape(HOST)}:\d+{blob_path(digest)}\n", head.read_text())


async def test_the_data_address_gives_nothing_but_blobs(tmp_path: Path) -> None:
    """Who opens it in a firewall opens no more than that."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, listen__data=DATA) as (mirror, client):
        content, digest = add_blob(fake, SIZE)
        answer = await client.get(blob_path(digest))
        assert (answer.status, answer.body) == (307, b"")
        there = URL(answer.headers["Location"])
        async with machine(str(there.origin())) as data:
            assert (await data.get(blob_path(digest))).body == content
            for path in (MANIFEST, "/", "/mirror/stats", "/mirror/v1/models", "/v2/", "/mirror/setup"):
                assert (await data.get(path)).status == 404
            for method in ("PUT", "DELETE", "POST"):
                assert (await data.get(blob_path(digest), method=method)).status == 404
        assert str(there.port) not in " ".join(mirror.urls)
        assert (await client.get(blob_path(digest), method="HEAD")).status == 200


async def test_a_port_of_the_mirror_itself_is_refused(tmp_path: Path) -> None:
    """Requests at it could not be told apart."""
    port = free_port()
    variables = {
        "OLLAMA_MIRROR_LISTEN_ADDRESSES": f"127.0.0.1:{port}",
        "OLLAMA_MIRROR_LISTEN_DATA": f"127.0.0.2:{port}",
        "OLLAMA_MIRROR_CACHE_DIRECTORY": str(tmp_path / "store"),
    }
    ended = await command("serve", env=variables, cwd=tmp_path)
    assert ended.code == 2
    assert f"listen.data: must have a port of its own, not {port}" in ended.err


async def test_a_model_of_another_upstream_is_not_pointed_to_where_nobody_has_it(tmp_path: Path) -> None:
    """At the data address its host, or its port, is another; once it is here that does not matter."""
    async with running_fake_registry() as fake, running_fake_registry() as hub:
        content, digest = add_blob(hub, SIZE)
        told = [{"name": "hub", "url": hub.url, "hosts": ["hub.lan"]}]
        said = {
            "upstreams": told,
            "listen__data": (data := f"127.0.0.1:{free_port()}"),
            "listen__data_url": f"http://{data}",
        }
        async with mirrored(tmp_path, fake, **said) as (_, client):
            cold = await client.get(blob_path(digest), Host="hub.lan")
            assert (cold.status, cold.body) == (200, content)
            warm = await client.get(blob_path(digest), Host="hub.lan")
            assert (warm.status, warm.headers["Location"]) == (307, f"http://{data}{blob_path(digest)}")
