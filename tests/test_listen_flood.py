"""A flood at the port while a pull goes on."""

import asyncio
import random
import socket
import sys
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the stubs are not installed
import pytest

from mirror.demo.model import write_model
from mirror.demo.ollama import pull
from mirror.demo.registry import running_registry
from tests.process import mirror, serving

SIZE = 400_000_000
FLOOD = 10_000
MOST_GROWTH = 60_000_000 if sys.version_info < (3, 13) else 80_000_000
"""Objects of Python 3.13 and later are larger: 50 MB with 3.11, 72 with 3.14."""
AT_ONCE = 200


def _packet(seed: int) -> bytes:
    """A malformed first packet: noise, half a handshake, half a head, nonsense of each kind."""
    chance = random.Random(seed)
    noise = chance.randbytes(chance.randrange(1, 300))
    kinds = (
        noise,
        b"\x16\x03\x01" + noise,
        b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03" + noise,
        b"GET /v2/ HTTP/1.1\r\nHost: " + noise,
        b"GET " + noise + b" HTTP/1.1\r\n\r\n",
        b"CONNECT " + noise + b"\r\n\r\n",
        b"CONNECT registry.ollama.ai:443 HTTP/1.1\r\n\r\n" + noise,
        b"POST /v2/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + noise,
        b"",
    )
    return kinds[seed % len(kinds)]


async def _thrown(port: int, seeds: range) -> None:
    """Throw packets one after another, the last hundred connections staying open and silent."""
    loop = asyncio.get_running_loop()
    left: list[socket.socket] = []
    for seed in seeds:
        sock = socket.socket()
        sock.setblocking(False)
        with suppress(OSError):
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, _packet(seed))
        left.append(sock)
        if len(left) > AT_ONCE:
            left.pop(0).close()
    for sock in left:
        sock.close()


@pytest.mark.timeout(200)
async def test_a_pull_ends_right_and_memory_stays_flat(tmp_path: Path) -> None:
    """Ten thousand malformed first packets, half handshakes, slow heads and silent connections."""
    model = await asyncio.to_thread(write_model, tmp_path / "registry", size=SIZE, name="library/m")
    assert (await mirror("tls", "init", "--store", str(tmp_path / "store"), cwd=tmp_path)).code == 0
    env = {"OLLAMA_MIRROR_UPSTREAM_RATE": "100MB/s", "OLLAMA_MIRROR_LISTEN_MAX_CONNECTIONS": "300"}
    async with (
        running_registry(model.folder) as registry,
        serving(tmp_path / "store", registry.url, env=env) as (url, process),
    ):
        port = int(url.rpartition(":")[2])
        async with asyncio.TaskGroup() as group:  # as many connections as there may be, once
            for _ in range(2):
                group.create_task(_thrown(port, range(900)))
        before = psutil.Process(process.pid).memory_info().rss
        async with asyncio.TaskGroup() as group:
            pulling = group.create_task(pull(url, "library/m:latest", part_min=1_000_000))
            step = FLOOD // 4
            for at in range(0, FLOOD, step):
                group.create_task(_thrown(port, range(at, at + step)))
        assert pulling.result().bytes == model.size
        growth = psutil.Process(process.pid).memory_info().rss - before
        assert growth < MOST_GROWTH
        assert (await pull(url, "library/m:latest", part_min=1_000_000)).bytes == model.size
