"""Many readers, one transfer."""

import asyncio
from pathlib import Path

import pytest

from mirror.values import ByteRange
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.support import MODEL, Machine, add_blob, blob_path, ended, locates, mirrored, parts

SIZE = 12_000_003
MIB = 1 << 20


async def every_part(client: Machine, path: str, content: bytes) -> None:
    """Fetch all of a blob as Ollama does, and check it."""
    spans = parts(len(content))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.get(path, span)) for span in spans]
    for span, task in zip(spans, tasks, strict=True):
        answer = task.result()
        assert (answer.status, answer.broken) == (206, False)
        assert answer.body == content[span.start : span.stop]


@pytest.mark.parametrize("redirects", [True, False])
@pytest.mark.parametrize("machines", [1, 2, 16])
async def test_sixteen_ranges_of_each_machine_cost_one_transfer(machines: int, redirects: bool, tmp_path: Path) -> None:
    """The line to the internet is what there is least of."""
    async with running_fake_registry(redirects=redirects) as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        async with asyncio.TaskGroup() as group:
            for _ in range(machines):
                group.create_task(every_part(client, blob_path(digest), content))
        assert fake.blob_bytes_sent(digest) == SIZE + locates(fake)
        assert locates(fake) == 1


async def test_probes_that_leave_cost_nothing(tmp_path: Path) -> None:
    """Ollama opens every blob without a range and drops that at once."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        for _ in range(8):
            async with client.session.get(client.url(blob_path(digest))) as probe:
                assert (probe.status, probe.headers["Location"]) == (200, blob_path(digest))
                probe.close()
        await every_part(client, blob_path(digest), content)
        assert fake.blob_bytes_sent(digest) == SIZE + 1


async def test_clients_without_a_manifest_cost_one_question_for_the_size(tmp_path: Path) -> None:
    """Nobody knows the size of a blob that no manifest names; ten who ask wait for one answer."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, 2 * MIB)
        fake.faults.add(Fault(Wrong.DELAY, "redirect", times=1, value=0.1))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.get(blob_path(digest))) for _ in range(10)]
        assert {task.result().body for task in tasks} == {content}
        assert len(fake.asked("redirect")) == 1


async def test_a_failed_question_for_the_size_is_one_too(tmp_path: Path) -> None:
    """And its failure is everybody's, not asked again by each in turn."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        _, digest = add_blob(fake, 2 * MIB)
        fake.faults.add(Fault(Wrong.STATUS, "redirect", value=404))
        fake.faults.add(Fault(Wrong.DELAY, "redirect", value=0.1))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.get(blob_path(digest))) for _ in range(10)]
        assert {task.result().status for task in tasks} == {404}
        assert len(fake.asked("redirect")) == 1


async def test_who_asked_for_the_size_may_leave(tmp_path: Path) -> None:
    """The next in line asks in its place."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, 2 * MIB)
        fake.faults.add(Fault(Wrong.DELAY, "redirect", times=1, value=30))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.get(blob_path(digest)))
            await fake.wait_for(lambda: len(fake.asked("redirect")) == 1)
            second = group.create_task(client.get(blob_path(digest)))
            asyncio.get_running_loop().call_later(0.1, first.cancel)
        assert second.result().body == content


async def test_a_reader_far_ahead_is_served_before_the_front_gets_there(tmp_path: Path) -> None:
    """Ollama's sixteenth part begins at 15/16, and is given up after 30 s without a byte."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, upstream__connections=2) as (mirror, client):
        content, digest = add_blob(fake, 40 * MIB)
        await client.manifest()
        fake.faults.add(Fault(Wrong.STALL, digest, times=1, value=0))
        fill = await mirror.parts.fills.open(MODEL, digest, len(content))
        assert fill is not None
        span = ByteRange(30 * MIB, 31 * MIB)
        fake.hold(digest, 31 * MIB)
        fake.faults.add(Fault(Wrong.SLOW, digest, value=1_500_000))
        answer = await client.get(blob_path(digest), span)

        assert answer.body == content[span.start : span.stop]
        assert fill.here < 8 * MIB, "the front is far from there"
        fill.park()
        fake.release(digest)
        await fill.ended.wait()


@pytest.mark.parametrize("slow_lines", [1, 2])
async def test_a_slow_connection_is_relieved_of_what_a_reader_waits_for(slow_lines: int, tmp_path: Path) -> None:
    """It would be twenty seconds before it got there by itself; another takes over, or it begins there anew."""
    changes = {"upstream__connections": 2, "upstream__stall_timeout": 0.5}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **changes) as (_, client):
        content, digest = add_blob(fake, 6 * MIB)
        await client.manifest()
        fake.faults.add(Fault(Wrong.SLOW, digest, times=1 + slow_lines, value=50_000))
        async with client.session.get(client.url(blob_path(digest))) as slow:
            await slow.content.readexactly(4000)
            span = ByteRange(900_000, 1_000_000)
            async with asyncio.timeout(5):
                answer = await client.get(blob_path(digest), span)
            assert answer.body == content[span.start : span.stop]
            slow.close()
        fake.faults.clear()


async def test_a_stalled_connection_is_replaced_while_a_reader_waits(tmp_path: Path) -> None:
    """Long before the stall time-out, which is longer than clients wait."""
    async with (
        running_fake_registry() as fake,
        mirrored(tmp_path, fake, upstream__stall_timeout=4, upstream__connections=1) as (_, client),
    ):
        content, digest = add_blob(fake, 2 * MIB)
        await client.manifest()
        fake.faults.add(Fault(Wrong.STALL, digest, times=1, value=300_000))
        async with asyncio.timeout(3):
            answer = await client.get(blob_path(digest))
        assert answer.body == content
        assert fake.blob_bytes_sent(digest) <= len(content) + locates(fake) + 256 * 1024


async def test_eight_readers_go_on_when_one_leaves(tmp_path: Path) -> None:
    """Whoever came first is nobody special."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.hold(digest, SIZE // 2)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.get(blob_path(digest)))
            await fake.wait_for(lambda: fake.blob_bytes_sent(digest) > MIB)
            others = [group.create_task(client.get(blob_path(digest))) for _ in range(8)]
            await fake.wait_for(lambda: fake.blob_bytes_sent(digest) > 5 * MIB)
            first.cancel()
            fake.release(digest)
        assert {task.result().body for task in others} == {content}
        assert {task.result().cache for task in others} == {"FILL"}
        assert fake.blob_bytes_sent(digest) == SIZE + 1


async def test_a_slow_reader_holds_nobody_up(tmp_path: Path) -> None:
    """Bytes are on disk: the fast take them when they like."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        async with client.session.get(client.url(blob_path(digest)), read_bufsize=1024) as slow:
            assert await slow.content.readexactly(10) == content[:10]
            async with asyncio.TaskGroup() as group:
                fast = [group.create_task(client.get(blob_path(digest))) for _ in range(4)]
            assert {task.result().body for task in fast} == {content}
            await ended(mirror.parts.fills.running(digest))
            assert await slow.read() == content[10:], "and it may take its time, also after the end of the fill"


async def test_a_client_that_comes_back_goes_on(tmp_path: Path) -> None:
    """With its range from where it left."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.hold(digest, 3 * MIB)
        async with client.session.get(client.url(blob_path(digest))) as answer:
            had = await answer.content.readexactly(2 * MIB)
            answer.close()
        fake.release(digest)
        rest = await client.get(blob_path(digest), ByteRange(2 * MIB, SIZE))
        assert had + rest.body == content
        assert fake.blob_bytes_sent(digest) == SIZE + 1
