"""How fills begin again, end and fail."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from mirror.events import DigestMismatched, FillEnded
from mirror.values import ByteRange, Digest
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.support import (
    MODEL,
    SOON_S,
    Machine,
    add_blob,
    blob_path,
    ended,
    locates,
    machine,
    mirrored,
    parts,
    until,
    written,
)

SIZE = 12_000_003
MIB = 1 << 20


async def test_after_a_restart_only_the_rest_is_fetched(tmp_path: Path) -> None:
    """A night's worth of a slow line is not thrown away."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, SIZE)
        fake.hold(digest, 7 * MIB)
        async with mirrored(tmp_path, fake) as (mirror, client):
            await client.manifest()
            fill = await mirror.parts.fills.open(MODEL, digest, SIZE)
            assert fill is not None
            await until(mirror, lambda: fill.here == 7 * MIB)
        assert f"state/partial/{digest.hex}" in written(tmp_path)
        before = fake.blob_bytes_sent(digest)
        fake.release(digest)
        async with mirrored(tmp_path, fake) as (mirror, client):
            assert (await client.get(blob_path(digest))).body == content
            assert fake.blob_bytes_sent(digest) - before == SIZE - 7 * MIB + 1
            await ended(mirror.parts.fills.running(digest))
        assert not [path for path in written(tmp_path) if "partial" in path]


@pytest.mark.parametrize(
    "fault", [Fault(Wrong.DELAY, "redirect", value=60), Fault(Wrong.STALL, value=0), Fault(Wrong.BUSY, text="29")]
)
async def test_shutdown_does_not_wait_for_an_upstream_that_does_not_answer(fault: Fault, tmp_path: Path) -> None:
    """Be it asked where a blob is, or for its bytes, or not at all for a while."""
    async with running_fake_registry() as fake:
        _, digest = add_blob(fake, SIZE)
        async with asyncio.timeout(3):
            async with mirrored(tmp_path, fake, upstream__stall_timeout=30) as (mirror, client):
                await client.manifest()
                fake.faults.add(fault)
                fill = await mirror.parts.fills.open(MODEL, digest, SIZE)
                await fake.wait_for(lambda: len(fake.log) >= 2)
            assert fill is not None
            assert fill.ended.is_set()


async def test_shutdown_cuts_readers_off(tmp_path: Path) -> None:
    """After the time that running answers get; to end well would be a lie."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, SIZE)
        fake.hold(digest, 5 * MIB)
        async with asyncio.TaskGroup() as group, machine(fake.url) as other:
            async with mirrored(tmp_path, fake) as (mirror, client):
                await client.manifest()
                url = str(client.url(blob_path(digest)))
                readers = [group.create_task(_read(other, url)) for _ in range(4)]
                await until(mirror, lambda: any(fill.here == 5 * MIB for fill in mirror.parts.fills.in_flight))
            for reader in readers:
                body, broken = await reader
                assert broken
                assert content.startswith(body)


async def _read(client: Machine, url: str) -> tuple[bytes, bool]:
    body = bytearray()
    try:
        async with client.session.get(url) as answer:
            async for chunk in answer.content.iter_any():
                body += chunk
    except aiohttp.ClientError:
        return bytes(body), True
    return bytes(body), False


async def test_a_corrupt_byte_is_found_out_and_fetched_again(tmp_path: Path) -> None:
    """The blob that is kept is the right one, and its client gets it in the end."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.faults.add(Fault(Wrong.CORRUPT, times=1, value=SIZE // 2))
        heard: list[object] = []
        mirror.parts.events.tap(heard.append)
        first = await client.get(blob_path(digest))
        second = await client.get(blob_path(digest))

        assert (first.broken, len(first.body)) == (True, SIZE - 1)
        assert second.body == content
        assert heard.count(DigestMismatched(digest)) == 1
        assert fake.blob_bytes_sent(digest) == 2 * SIZE + locates(fake)


async def test_no_reader_ever_completes_a_wrong_blob(tmp_path: Path) -> None:
    """However long it tries: not the last byte, and not what follows; and the upstream is left in peace."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        _, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.faults.add(Fault(Wrong.CORRUPT, value=5))
        last = ByteRange(SIZE - 1, SIZE)
        async with asyncio.TaskGroup() as group:
            whole = [group.create_task(client.get(blob_path(digest))) for _ in range(4)]
            ends = [group.create_task(client.get(blob_path(digest), last)) for _ in range(2)]
        for task in whole:
            assert task.result().broken or task.result().status == 502
            assert len(task.result().body) < SIZE
        assert [task.result().status for task in ends] == [502, 502]
        while fill := mirror.parts.fills.running(digest):
            await fill.ended.wait()
        assert fake.blob_bytes_sent(digest) <= 3 * SIZE + locates(fake)
        for _ in range(10):
            again = await client.get(blob_path(digest))
            assert again.status == 502
            assert b"digest mismatch" in again.body
        assert fake.blob_bytes_sent(digest) <= 3 * SIZE + locates(fake)
        assert not {path for path in written(tmp_path) if digest.hex in path}


async def test_an_empty_blob_is_proven_too(tmp_path: Path) -> None:
    """There is no byte of it that could be withheld."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        empty = fake.add_blob(b"")
        assert await mirror.parts.fills.open(MODEL, empty, 0) is not None
        good = await client.get(blob_path(empty))
        assert (good.status, good.body, good.broken) == (200, b"", False)
        wrong = Digest("1" * 64)
        assert await mirror.parts.fills.open(MODEL, wrong, 0) is not None
        bad = await client.get(blob_path(wrong))
        assert bad.status == 502 or bad.broken


async def test_with_keep_filling_off_nobody_left_means_parked(tmp_path: Path) -> None:
    """For those who pay by the byte; coming back goes on."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, cache__keep_filling=False) as (mirror, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.hold(digest, 4 * MIB)
        async with client.session.get(client.url(blob_path(digest))) as answer:
            await answer.content.readexactly(3 * MIB)
            fill = mirror.parts.fills.running(digest)
            answer.close()
        assert fill is not None
        async with asyncio.timeout(SOON_S):
            await fill.ended.wait()
        assert fill.error is None
        assert mirror.parts.fills.in_flight == ()
        fake.release(digest)
        assert (await client.get(blob_path(digest))).body == content
        assert fake.blob_bytes_sent(digest) <= SIZE + 2 * MIB


async def test_who_comes_while_a_fill_is_being_parked_gets_the_next(tmp_path: Path) -> None:
    """And no error for having come at the wrong moment."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        for _ in range(5):
            fill = await mirror.parts.fills.open(MODEL, digest, SIZE)
            if fill is not None:
                fill.park()
        answer = await client.get(blob_path(digest))
        assert (answer.status, answer.body) == (200, content)


async def test_a_tag_that_moves_leaves_the_running_fill_alone(tmp_path: Path) -> None:
    """Who pulls the old model gets all of it, who comes later the new one."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, cache__manifest_ttl=0) as (_, client):
        old, old_digest = add_blob(fake, SIZE)
        assert (await client.manifest()).layers[0].digest == old_digest
        fake.hold(old_digest, MIB)
        async with asyncio.TaskGroup() as group:
            pulling = group.create_task(client.get(blob_path(old_digest)))
            await fake.wait_for(lambda: fake.blob_bytes_sent(old_digest) > 1000)
            new, new_digest = add_blob(fake, 3 * MIB, seed=1)
            assert (await client.manifest()).layers[0].digest == new_digest
            assert (await client.get(blob_path(new_digest))).body == new
            fake.release(old_digest)
        assert pulling.result().body == old


async def test_a_fill_that_nobody_reads_gives_way(tmp_path: Path) -> None:
    """What is fetched ahead gets one connection while somebody waits for something else."""
    changes = {"upstream__connections": 4, "upstream__max_connections": 4}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **changes) as (mirror, client):
        _, ahead = add_blob(fake, 64 * MIB, "library/ahead")
        content, digest = add_blob(fake, SIZE, seed=1)
        await client.manifest()
        fake.faults.add(Fault(Wrong.SLOW, ahead, value=3_000_000))
        fill = await mirror.parts.fills.open(MODEL, ahead, 64 * MIB)
        assert fill is not None
        await fake.wait_for(lambda: fake.blob_bytes_sent(ahead) > 1000)
        assert fill.lines == 4
        fake.hold(digest, 4 * MIB)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(client.get(blob_path(digest)))
            await until(mirror, lambda: fill.lines == 1)
            fake.release(digest)
        assert reading.result().body == content


@pytest.mark.parametrize("seed", range(4))
async def test_readers_who_come_and_go_at_any_time_see_the_right_bytes(seed: int, tmp_path: Path) -> None:
    """Joining as it begins, in the middle, at its very end and after."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, 5 * MIB, seed=seed)
        await client.manifest()
        fake.faults.add(Fault(Wrong.CUT, times=3, value=200_000 + seed))
        spans = parts(len(content), 37)

        async def read(index: int) -> None:
            span = spans[index % 37]
            for step in range(4):
                await asyncio.sleep(0.003 * ((index * 7 + step + seed) % 11))
                answer = await client.get(blob_path(digest), span)
                assert (answer.status, answer.body) == (206, content[span.start : span.stop])

        async with asyncio.TaskGroup() as group:
            for index in range(60):
                group.create_task(read(index))
        assert mirror.parts.fills.in_flight == ()


async def test_a_fills_end_is_told_once(tmp_path: Path) -> None:
    """Whatever way it ended."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, SIZE)
        heard: list[object] = []
        mirror.parts.events.tap(heard.append)
        await client.manifest()
        await client.get(blob_path(digest))
        await ended(mirror.parts.fills.running(digest))
        (end,) = [one for one in heard if isinstance(one, FillEnded)]
        assert (end.digest, end.size, end.fetched, end.error) == (digest, len(content), SIZE, None)
