"""Tunnels: byte for byte, half open, only where they may lead, and nothing left of them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the stubs are not installed
import pytest

from mirror.listen.names import tunnel_pattern
from mirror.listen.targets import Target
from mirror.listen.tunnel import NotTunnelled, Tunnels
from mirror.upstream.addresses import is_public
from tests.fakes.registry import running_fake_registry
from tests.process import run
from tests.support import MANIFEST, add_blob, eventually, noise
from tests.ways import doors


@asynccontextmanager
async def peer(*, silent: bool = False) -> AsyncIterator[int]:
    """A server that, once it has been sent all, sends it back turned round; or says nothing. Yields its port."""
    running: set[asyncio.Task[None] | None] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        try:
            with suppress(OSError):
                said = await reader.read(-1)
                if not silent:
                    writer.write(said[::-1])
                    await writer.drain()
        finally:
            writer.close()
            running.discard(asyncio.current_task())

    server = await asyncio.start_server(answer, "127.0.0.2", 0, limit=1 << 24)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        if running:  # a tunnel that has ended has closed both its ends
            _, pending = await asyncio.wait([task for task in running if task], timeout=5)
            assert not pending


async def tunnelled(door: int, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection through the mirror."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door)
    writer.write(f"CONNECT 127.0.0.2:{port} HTTP/1.1\r\nHost: 127.0.0.2:{port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 Connection established\r\n\r\n"
    return reader, writer


def descriptors() -> int:
    """What this process holds open. Files are left out: the database opens another when it needs one."""
    process = psutil.Process()
    return int(process.num_fds()) - len(process.open_files())


async def test_bytes_go_both_ways_and_half_a_tunnel_stays_open(tmp_path: Path) -> None:
    """Megabytes there, the end of it, and megabytes back; the host is listed literally, so loopback will do."""
    content = noise(5_000_000)
    async with peer() as port, running_fake_registry() as fake:
        changes = {"listen__tunnel": (f"127.0.0.2:{port}",)}
        async with doors(tmp_path, fake, **changes) as there:
            before = descriptors()
            for _ in range(3):
                reader, writer = await tunnelled(there.port, port)
                writer.write(content)
                writer.write_eof()
                async with asyncio.timeout(20):
                    assert await reader.read(-1) == content[::-1]
                writer.close()
                await writer.wait_closed()

            async def as_before() -> bool:
                return descriptors() <= before

            await eventually(as_before)


@pytest.mark.parametrize("who", ["client", "mirror"])
async def test_a_tunnel_ends_with_its_client_and_with_the_mirror(who: str, tmp_path: Path) -> None:
    """The mirror waits for its tunnels no longer than a moment in which nothing moves."""
    async with peer(silent=True) as port, running_fake_registry() as fake:
        changes = {"listen__tunnel": (f"127.0.0.2:{port}",), "server__shutdown": 20}
        begun = asyncio.get_running_loop().time()
        async with doors(tmp_path, fake, **changes) as there:
            reader, writer = await tunnelled(there.port, port)
            if who == "client":
                writer.transport.abort()
        async with asyncio.timeout(10):
            with suppress(OSError):
                assert await reader.read(-1) == b""
        assert asyncio.get_running_loop().time() - begun < 10
        writer.close()


async def test_a_tunnel_in_which_nothing_moves_ends(tmp_path: Path) -> None:
    """Both ends stay silent."""
    async with peer(silent=True) as port:
        tunnels = Tunnels([f"127.0.0.2:{port}"], is_public, idle_s=0.2)
        here, client = socket.socketpair()
        with here, client, await tunnels.reach(Target("127.0.0.2", port)) as there:
            here.setblocking(False)
            with pytest.raises(TimeoutError):
                await tunnels.carry(here, there)


async def test_curl_goes_through_to_a_server_that_is_listed(tmp_path: Path) -> None:
    """Here the fake registry under another name of this machine; what is not listed is refused."""
    async with running_fake_registry() as fake:
        port = int(fake.url.rpartition(":")[2])
        async with doors(
            tmp_path, fake, upstream__url="http://up.invalid", listen__tunnel=(f"127.0.0.1:{port}",)
        ) as at:
            add_blob(fake, 1000)
            through = ("curl", "-sS", "--noproxy", "", "-p", "-x", f"http://127.0.0.1:{at.port}")
            done = await run(*through, f"{fake.url}{MANIFEST}")
            assert "layers" in done.out, done.err
            assert (await run(*through, "https://example.org/")).code in (7, 56)


async def test_a_tunnel_does_not_lead_back_to_the_mirror(tmp_path: Path) -> None:
    """Its client would count as one of the mirror's own machine, which may do anything."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__tunnel=("*.localhost:*", "127.0.0.3:*",
        "localhost:*")) as at:  # fmt: skip
        for host in ("127.0.0.3", "localhost", "x.localhost"):
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
            writer.write(f"CONNECT {host}:{at.port} HTTP/1.1\r\n\r\n".encode())
            answer = await reader.readline()
            assert not answer.startswith(b"HTTP/1.1 200")
            writer.close()


@pytest.mark.parametrize(
    ("patterns", "host", "port", "found"),
    [
        (["github.com"], "GitHub.com", 443, "github.com"),
        (["github.com"], "github.com", 22, None),
        (["github.com:*"], "github.com.", 22, "github.com"),
        (["*.ollama.com"], "x.ollama.com", 443, "*.ollama.com"),
        (["*.ollama.com"], "ollama.com", 443, None),
        (["*.ollama.com"], "xollama.com", 443, None),
        (["[::1]:22"], "::1", 22, "::1"),
        (["[::1]"], "::1", 443, "::1"),
        (["10.0.0.1:80"], "10.0.0.1", 80, "10.0.0.1"),
        ([], "github.com", 443, None),
    ],
)
def test_patterns_name_hosts_and_ports(patterns: list[str], host: str, port: int, found: str | None) -> None:
    """The port is 443 unless it is said."""
    assert tunnel_pattern(patterns, host, port) == found


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1", "192.168.1.1"],
)
async def test_a_wildcard_leads_to_public_addresses_only(host: str) -> None:
    """Neither to this machine nor to its network; a name that resolves there is no way around."""
    with pytest.raises(NotTunnelled, match="public addresses only"):
        await Tunnels(["*:*"], is_public).reach(Target(host, 9))


async def test_where_nobody_listens_is_a_bad_gateway() -> None:
    """502, with the system's word."""
    with pytest.raises(NotTunnelled, match="cannot be reached") as refused:
        await Tunnels(["127.0.0.1:1"], is_public).reach(Target("127.0.0.1", 1))
    assert refused.value.status.startswith("502")
    with pytest.raises(NotTunnelled, match="cannot be reached"):
        await Tunnels(["nowhere.invalid"], is_public).reach(Target("nowhere.invalid", 443))
