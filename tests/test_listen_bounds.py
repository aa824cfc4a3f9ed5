"""What bounds a connection: time, size, number; and that a stop is in order."""

import asyncio
import re
import resource
import socket
import ssl
import struct
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the stubs are not installed
import pytest

from mirror.listen import door
from mirror.values import ByteRange
from tests.fakes.registry import running_fake_registry
from tests.process import serving
from tests.support import add_blob, blob_path, eventually, machine
from tests.ways import HOST, Doors, doors

PING = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"


async def opened(there: Doors, context: ssl.SSLContext | None = None) -> tuple[StreamReader, StreamWriter]:
    """A connection to the mirror."""
    return await asyncio.open_connection("127.0.0.1", there.port, ssl=context)


async def ends(reader: StreamReader) -> bytes:
    """Return all that comes until the mirror ends the connection."""
    said = b""
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                said += piece
    return said


async def pinged(reader: StreamReader, writer: StreamWriter) -> bool:
    """Whether a request is answered."""
    try:
        writer.write(PING)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
    except (OSError, asyncio.IncompleteReadError):
        return False
    return head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "begun",
    [b"", b"C", b"CONNECT ", b"CONNECT registry.ollama.ai:443 HTTP/1.1\r\n", b"GET /v2/ HTTP/1.1\r\nHost:", b"\x16",
     b"\x16\x03\x01\x02\x00\x01\x00", f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n".encode()],
)  # fmt: skip
async def test_who_says_nothing_more_is_sent_away(begun: bytes, tmp_path: Path) -> None:
    """Whatever the connection was going to be."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__head_timeout=0.3) as there:
        reader, writer = await opened(there)
        writer.write(begun)
        await ends(reader)
        writer.close()


async def test_a_head_that_trickles_is_ended(tmp_path: Path) -> None:
    """Every byte a little later than the one before does not win time; also by TLS."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__head_timeout=0.5) as there:
        for context in (None, there.context()):
            reader, writer = await opened(there, context)
            writer.write(b"GET /v2/ HTTP/1.1\r\n")
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                ended = group.create_task(ends(reader))
                while not ended.done():
                    writer.write(b"X")
                    await asyncio.wait([ended], timeout=0.02)
            writer.transport.abort()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_head_too_long_is_refused(tls: bool, tmp_path: Path) -> None:
    """In lines of a length that would do."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        reader, writer = await opened(there, there.context() if tls else None)
        assert await pinged(reader, writer)
        writer.write(b"GET /v2/ HTTP/1.1\r\n")
        for number in range(5):
            writer.write(b"X-%d: " % number + b"x" * 8000 + b"\r\n")
        said = await ends(reader)
        assert not said or said.startswith(b"HTTP/1.1 431 ")  # a reset may overtake the answer
        writer.close()


async def test_an_idle_connection_is_closed_in_its_time(tmp_path: Path) -> None:
    """After an answer, and in the middle of a second head."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__idle_timeout=0.3) as there:
        for more in (b"", b"GET /v2"):
            reader, writer = await opened(there)
            assert await pinged(reader, writer)
            writer.write(more)
            await ends(reader)
            writer.close()


async def test_the_longest_idle_makes_room(tmp_path: Path) -> None:
    """A flood of silent connections ends its own; who is answered meanwhile stays."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__max_connections=16) as there:
        content, digest = add_blob(fake, 1_000_000)
        fake.hold(digest, 500_000)
        served = await opened(there)
        served[1].write(f"GET {blob_path(digest)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        await served[0].readuntil(b"\r\n\r\n")
        silent = [await opened(there) for _ in range(15)]
        assert await pinged(*silent[3])  # goes to the end of the line
        more = [await opened(there) for _ in range(3)]
        assert all([await pinged(*one) for one in more])
        for gone in (silent[0], silent[1], silent[2]):
            await ends(gone[0])
        assert await pinged(*silent[3])
        fake.release(digest)
        assert await ends(served[0]) == content
        for _, writer in (*silent, *more, served):
            writer.close()


async def test_where_all_are_busy_a_new_one_is_closed_at_once(tmp_path: Path) -> None:
    """And let in when one has ended."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__max_connections=16) as there:
        _, digest = add_blob(fake, 1_000_000)
        fake.hold(digest, 500_000)
        busy = [await opened(there) for _ in range(16)]
        for reader, writer in busy:
            writer.write(f"GET {blob_path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        late = await opened(there)
        assert await ends(late[0]) == b""
        late[1].close()
        busy[0][1].close()

        async def let_in() -> bool:
            reader, writer = await opened(there)
            found = await pinged(reader, writer)
            writer.close()
            return found

        await eventually(let_in)
        fake.release(digest)
        for _, writer in busy:
            writer.close()


async def test_who_never_reads_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system (TCP_USER_TIMEOUT), which knows best whether a byte was taken; by sendfile and by TLS."""
    monkeypatch.setattr(door, "_NEVER_READS_S", 1)
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        content, digest = add_blob(fake, 30_000_000)
        async with machine(there.mirror.url) as client:
            assert (await client.get(blob_path(digest))).body == content
        for context in (None, there.context()):
            reader, writer = await opened(there, context)
            assert isinstance(writer.transport, asyncio.Transport)
            writer.transport.pause_reading()
            writer.write(f"GET {blob_path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await eventually(lambda: _connections(there, 1))
            await eventually(lambda: _connections(there, 0))
            writer.transport.abort()
            del reader


async def _connections(there: Doors, count: int) -> bool:
    found = psutil.Process().net_connections("tcp")
    return len([one for one in found if one.status == "ESTABLISHED" and one.laddr.port == there.port]) == count


async def test_a_slow_reader_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than a client may that takes nothing."""
    monkeypatch.setattr(door, "_NEVER_READS_S", 1)
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        content, digest = add_blob(fake, 9_000_000)
        for context in (None, there.context()):
            reader, writer = await opened(there, context)
            writer.write(f"GET {blob_path(digest)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            body = bytearray()
            while len(body) < len(content):
                body += await reader.readexactly(min(500_000, len(content) - len(body)))
                await asyncio.sleep(0.1)  # that is what slow means
            assert body == content
            writer.close()


async def test_a_client_that_resets_leaves_nothing_behind(tmp_path: Path) -> None:
    """At any moment, by any way: descriptors and guests are as before."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        _, digest = add_blob(fake, 3_000_000)
        async with machine(there.mirror.url) as client:
            await client.get(blob_path(digest))
        await eventually(lambda: _connections(there, 0))
        before = psutil.Process().num_fds()
        get = f"GET {blob_path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        connect = f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n".encode()
        for said in (b"", b"C", b"\x16\x03", connect, connect + b"\x16\x03\x01", get, get * 40, b"\x00" * 9000):
            for _ in range(5):
                sock = socket.create_connection(("127.0.0.1", there.port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.send(said)
                await asyncio.sleep(0)
                sock.close()

        async def as_before() -> bool:
            return bool(psutil.Process().num_fds() <= before)

        await eventually(as_before)


@pytest.mark.timeout(120)
async def test_without_descriptors_it_waits_and_says_so_once(tmp_path: Path) -> None:
    """EMFILE: no flood of lines in the log, no busy loop, and on it goes when some are given back."""
    log = tmp_path / "mirror.log"
    env = {"OLLAMA_MIRROR_LOGGING_FILE": str(log)}
    async with running_fake_registry() as fake, serving(tmp_path / "store", fake.url, env=env) as (url, process):
        port = int(url.rpartition(":")[2])
        mirror = psutil.Process(process.pid)
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await pinged(*held[0])
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (mirror.num_fds() + 2, hard))
        held += [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]

        async def said() -> bool:
            return "cannot take connections" in log.read_text()

        await eventually(said)
        used = mirror.cpu_times().user + mirror.cpu_times().system
        assert await pinged(*held[0])
        await asyncio.sleep(1.5)  # the time that is measured
        assert mirror.cpu_times().user + mirror.cpu_times().system - used < 0.5
        assert len(re.findall("cannot take connections", log.read_text())) == 1
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert all([await pinged(*one) for one in held])
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_stop_lets_answers_finish(tls: bool, tmp_path: Path) -> None:
    """And silent connections, idle ones and half handshakes do not hold it up."""
    async with running_fake_registry() as fake:
        _, digest = add_blob(fake, 3_000_000)
        async with doors(tmp_path, fake, server__shutdown=20) as there:
            async with machine(there.mirror.url) as client:
                await client.get(blob_path(digest), ByteRange(0, 10))
                await client.get(blob_path(digest))
            context = there.context() if tls else None
            idle, silent, half, asking = [await opened(there) for _ in range(4)]
            sealed = await opened(there, there.context())
            assert await pinged(*idle)
            assert await pinged(*sealed)
            half[1].write(b"\x16\x03\x01")
            asking[1].close()
            asking = await opened(there, context)
            asking[1].write(f"GET {blob_path(digest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await asking[0].readuntil(b"\r\n\r\n")
            begun = asyncio.get_running_loop().time()
            reading = asyncio.TaskGroup()
            await reading.__aenter__()
            rest = reading.create_task(ends(asking[0]))
        await reading.__aexit__(None, None, None)
        assert b"HTTP/1.1 200 " in head
        assert len(rest.result()) == 3_000_000
        assert asyncio.get_running_loop().time() - begun < 10
        for _, writer in (idle, silent, half, asking, sealed):
            writer.close()
