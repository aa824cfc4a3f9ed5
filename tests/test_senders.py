"""Processes beside the mirror that send long blobs: what they send, what they let go of, and what happens to them."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import aiohttp
import psutil  # type: ignore[import-untyped]  # the stubs are not installed
import pytest

from mirror.app import RunningMirror
from mirror.events import BlobServed, Event
from mirror.keep import Scrubbed
from mirror.values import ByteRange, Digest
from tests.fakes.registry import running_fake_registry
from tests.process import serving
from tests.support import MANIFEST, Machine, add_blob, blob_path, eventually, machine, mirrored, parts
from tests.ways import doors

SIZE = 40_000_000
"""Much more than the buffers of a connection hold, so that a client that stops reading stops the sender."""


def senders(parent: int | None = None) -> list[psutil.Process]:
    """The processes that send for ``parent``; None is for this one."""
    found = psutil.Process(parent).children()
    return [one for one in found if any("sender_process" in part for part in one.cmdline())]


def transfers() -> int:
    """How many connections and files they hold together."""
    names = [os.readlink(f"/proc/{one.pid}/fd/{fd}") for one in senders() for fd in os.listdir(f"/proc/{one.pid}/fd")]
    return sum("blobs/" in name for name in names)


@asynccontextmanager
async def filled(folder: Path, workers: int = 3) -> AsyncIterator[tuple[RunningMirror, Machine, Digest]]:
    """A mirror that has a large blob, and that many processes, its own among them."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, SIZE)
        async with mirrored(folder, fake, server__workers=workers) as (mirror, client):
            await client.get(MANIFEST)
            assert (await client.get(blob_path(digest))).body == content
            await eventually(lambda: _are(workers - 1))
            yield mirror, client, digest


async def _are(count: int) -> bool:
    return len(senders()) == count


async def _hold(count: int) -> bool:
    return transfers() == count


@asynccontextmanager
async def stuck(mirror: RunningMirror, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A client that has read the head of an answer and not yet its bytes, which a process is sending."""
    async with aiohttp.ClientSession(read_bufsize=1024) as session, session.get(mirror.url + path) as answer:
        await eventually(lambda: _hold(1))
        yield answer


async def test_whole_blobs_and_ranges_are_right_and_counted(tmp_path: Path) -> None:
    """Sixteen at once, as Ollama reads, and again on the connections that are left open."""
    async with filled(tmp_path) as (mirror, client, digest):
        heard = list[Event]()
        mirror.parts.events.tap(heard.append, BlobServed)
        whole = await client.get(blob_path(digest))
        for count in (3, 16, 1):
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(client.get(blob_path(digest), span)) for span in parts(SIZE, count)]
            body = b"".join(one.result().body for one in asked)
            assert sha256(body).hexdigest() == digest.hex
            assert not any(one.result().broken for one in asked)
        assert sha256(whole.body).hexdigest() == digest.hex
        assert sum(one.sent for one in heard if isinstance(one, BlobServed)) == 4 * SIZE
        assert transfers() == 0


async def test_a_fill_goes_out_by_them_too(tmp_path: Path) -> None:
    """What is on disk of it, as it comes."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, SIZE)
        async with mirrored(tmp_path, fake, server__workers=2) as (_, client):
            await eventually(lambda: _are(1))
            await client.get(MANIFEST)
            answers = [await client.get(blob_path(digest), span) for span in parts(SIZE, 2)]
            assert b"".join(one.body for one in answers) == content


async def test_they_share_the_work(tmp_path: Path) -> None:
    """Who has less to do gets the next."""
    async with filled(tmp_path) as (mirror, _, digest):
        async with (
            stuck(mirror, blob_path(digest)),
            aiohttp.ClientSession(read_bufsize=1024) as session,
            session.get(mirror.url + blob_path(digest)),
        ):
            await eventually(lambda: _hold(2))
            for one in senders():
                held = [os.readlink(f"/proc/{one.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{one.pid}/fd")]
                assert sum("blobs/" in name for name in held) == 1
        await eventually(lambda: _hold(0))


async def test_a_client_that_leaves_is_let_go(tmp_path: Path) -> None:
    """With everything that was open for it, here and there."""
    async with filled(tmp_path, workers=2) as (mirror, client, digest):
        before = psutil.Process().num_fds()
        for _ in range(3):
            async with stuck(mirror, blob_path(digest)) as answer:
                answer.close()
            await eventually(lambda: _hold(0))
        assert not (await client.get(blob_path(digest))).broken

        async def as_before() -> bool:
            return bool(psutil.Process().num_fds() <= before)

        await eventually(as_before)


async def test_one_that_dies_cuts_its_clients_off_and_another_takes_its_place(tmp_path: Path) -> None:
    """Nobody can say how much it sent; the client asks for the rest again."""
    async with filled(tmp_path, workers=2) as (mirror, client, digest):
        async with stuck(mirror, blob_path(digest)) as answer:
            (died,) = senders()
            died.kill()
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        again = await client.get(blob_path(digest))
        assert sha256(again.body).hexdigest() == digest.hex

        async def is_another() -> bool:
            return [one.pid for one in senders()] not in ([], [died.pid])

        await eventually(is_another)
        async with stuck(mirror, blob_path(digest)) as answer:
            assert sha256(await answer.read()).hexdigest() == digest.hex


async def test_a_blob_found_damaged_meanwhile_never_becomes_whole(tmp_path: Path) -> None:
    """The mirror sends the end itself, and looks whether the blob still counts."""
    async with filled(tmp_path, workers=2) as (mirror, _, digest):
        async with stuck(mirror, blob_path(digest)) as answer:
            path = mirror.parts.store.layout.blob(digest)
            with path.open("r+b") as file:
                file.write(b"\xff")
            await mirror.parts.scrub.scrub(_not_told, None)
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        await eventually(lambda: _hold(0))


def _not_told(_: Scrubbed) -> None:
    """Nobody wants to know."""


async def test_over_tls_the_mirror_sends_by_itself(tmp_path: Path) -> None:
    """Only it has the connection's secrets."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, server__workers=2) as there:
        content, digest = add_blob(fake, SIZE)
        connector = aiohttp.TCPConnector(ssl=there.context())
        async with aiohttp.ClientSession(connector=connector) as session:
            for _ in range(2):
                async with session.get(f"https://127.0.0.1:{there.port}{blob_path(digest)}") as answer:
                    assert await answer.read() == content


async def test_signals_to_all_let_replies_end_and_the_mirrors_end_is_theirs(tmp_path: Path) -> None:
    """A service manager asks every process of a service to end; ``kill -9`` of the mirror leaves none behind."""
    more = {"OLLAMA_MIRROR_WORKERS": "2", "OLLAMA_MIRROR_SERVER_SHUTDOWN": "30s"}
    async with running_fake_registry() as fake:
        _, digest = add_blob(fake, SIZE)
        async with serving(tmp_path / "store", fake.url, env=more) as (url, process), machine(url) as client:
            await client.get(blob_path(digest))
            await eventually(lambda: _is_one(process.pid))
            (sender,) = senders(process.pid)
            async with (
                aiohttp.ClientSession(read_bufsize=1024) as session,
                session.get(url + blob_path(digest)) as answer,
            ):
                for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                    sender.send_signal(number)
                process.terminate()
                assert sha256(await answer.read()).hexdigest() == digest.hex
            async with asyncio.timeout(20):
                await process.wait()
            assert not sender.is_running()
        async with serving(tmp_path / "store", fake.url, env=more) as (_, process):
            await eventually(lambda: _is_one(process.pid))
            (sender,) = senders(process.pid)
            process.kill()
            await asyncio.to_thread(sender.wait, 10)


async def _is_one(parent: int) -> bool:
    return len(senders(parent)) == 1


async def test_a_vanished_reader_of_a_small_range_troubles_nobody(tmp_path: Path) -> None:
    """Short ranges never leave the mirror, whoever else sends."""
    async with filled(tmp_path, workers=2) as (mirror, client, digest):
        with socket.create_connection((mirror.parts.settings.server.host, int(mirror.url.rsplit(":", 1)[1]))) as plain:
            plain.sendall(f"GET {blob_path(digest)} HTTP/1.1\r\nHost: m\r\nRange: bytes=0-99\r\n\r\n".encode())
        assert len((await client.get(blob_path(digest), ByteRange(0, 1000))).body) == 1000
