"""The worker: nights and their ends, failures and their tries, and what people do meanwhile."""

import asyncio
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from mirror.app import RunningMirror
from mirror.db import open_database
from mirror.fill import PullProgress
from mirror.pulls import Job, Queue, State, Worker
from mirror.values import Digest
from mirror.values.window import Schedule
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.night import Night, NightClock, night
from tests.support import add_blob, mirrored

SIZE = 3_000_000


def here(mirror: RunningMirror, digest: Digest) -> int:
    """How many bytes of a blob on its way in are on disk."""
    fill = mirror.parts.fills.running(digest)
    return fill.here if fill is not None else 0


async def test_a_job_waits_for_the_night(tmp_path: Path) -> None:
    """By day nothing is asked of the upstream; at ten it is fetched."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _), night(tmp_path, mirror) as now:
        add_blob(fake, SIZE)
        await now.want("m")
        now.clock.move(hours=9, minutes=59)
        await now.want("n", at_once=True)
        assert await now.over("n") == "failed"
        assert {entry.path.split("/")[3] for entry in fake.log} == {"n"}
        now.clock.move(minutes=1)
        assert await now.over("m") == "completed"
        (job,) = await now.queue.history(1)
        stored = mirror.parts.store.complete.find(job.name)
        assert stored is not None
        assert job.size == sum(blob.size for blob in stored.blobs)


async def test_the_end_of_the_night_parks_and_the_next_goes_on(tmp_path: Path) -> None:
    """From the same byte: no byte crosses the line twice, and the day's line is free."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _), night(tmp_path, mirror) as now:
        content, digest = add_blob(fake, SIZE)
        fake.hold(digest, offset=1_000_000)
        await now.want("m")
        now.clock.move(hours=10)
        await now.until(lambda: here(mirror, digest) >= 500_000)
        now.clock.move(hours=8)
        await now.until(lambda: now.queue.jobs[0].state is State.PENDING and not mirror.parts.fills.in_flight)
        fake.release(digest)
        assert now.queue.jobs[0].tries == 0
        now.clock.move(hours=16)
        assert await now.over("m") == "completed"
        assert fake.blob_bytes_sent(digest) < len(content) + 600_000


async def test_another_process_goes_on_with_what_one_left(tmp_path: Path) -> None:
    """What was under way is pending again, and its bytes are there."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, SIZE)
        fake.hold(digest, offset=1_000_000)
        async with mirrored(tmp_path, fake) as (mirror, _), night(tmp_path, mirror) as now:
            await now.want("m", at_once=True)
            await now.until(lambda: here(mirror, digest) >= 500_000)
        fake.release(digest)
        async with mirrored(tmp_path, fake) as (mirror, _), night(tmp_path, mirror) as now:
            assert await now.over("m") == "completed"
        assert fake.blob_bytes_sent(digest) < len(content) + 600_000


async def failed(now: Night, tries: int) -> list[Job]:
    """Wait until the jobs have failed so many times, and wait for the next."""
    await now.until(lambda: all(one.tries == tries and one.state is State.PENDING for one in now.queue.jobs))
    return now.queue.jobs


async def test_what_may_pass_is_tried_again_later_each_time(tmp_path: Path) -> None:
    """And given up after some tries, with the reason kept."""
    said = {"upstream__retry_attempts": 0}
    async with (
        running_fake_registry() as fake,
        mirrored(tmp_path, fake, **said) as (mirror, _),
        night(tmp_path, mirror) as now,
    ):
        add_blob(fake, SIZE)
        fake.faults.add(Fault(Wrong.STATUS, "manifest", value=503, times=100))
        await now.want("m", at_once=True)
        for tries, minutes in ((1, 1), (2, 2)):
            (job,) = await failed(now, tries)
            assert job.not_before is not None
            assert (job.not_before - now.clock.now()).total_seconds() == 60 * minutes
            now.clock.move(minutes=minutes)
        assert await now.over("m") == "failed"
        error = (await now.queue.history(1))[0].error
        assert error is not None
        assert "503" in error


@pytest.mark.parametrize(("changes", "state"), [({}, "failed"), ({"security__blocked_models": ["gone"]}, "refused")])
async def test_what_cannot_be_is_over_at_once(changes: dict[str, object], state: str, tmp_path: Path) -> None:
    """A model nobody has, and one that is not allowed."""
    async with (
        running_fake_registry() as fake,
        mirrored(tmp_path, fake, **changes) as (mirror, _),
        night(tmp_path, mirror) as now,
    ):
        await now.want("gone", at_once=True)
        assert await now.over("gone") == state


async def test_a_job_that_is_taken_back_stops(tmp_path: Path) -> None:
    """In the middle of it, and the fill with it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _), night(tmp_path, mirror) as now:
        _, digest = add_blob(fake, SIZE)
        fake.hold(digest, offset=1_000_000)
        await now.want("m", at_once=True)
        await now.until(lambda: here(mirror, digest) >= 500_000)
        await now.queue.cancel("m:latest")
        await now.until(lambda: not mirror.parts.fills.in_flight)
        assert (await now.queue.history(1))[0].state is State.CANCELLED
        fake.release(digest)


async def test_so_many_at_once_and_none_while_it_is_paused(tmp_path: Path) -> None:
    """In their order."""
    async with (
        running_fake_registry() as fake,
        mirrored(tmp_path, fake) as (mirror, _),
        night(tmp_path, mirror, most=1) as now,
    ):
        digests = [add_blob(fake, SIZE, f"library/{name}:latest", seed=seed)[1] for seed, name in enumerate("abc")]
        fake.hold(digests[0])
        await now.queue.pause(paused=True)
        for text in "abc":
            await now.want(text)
        now.clock.move(hours=10)
        await now.want("a", "another")
        assert not fake.log
        await now.queue.pause(paused=False)
        await now.until(lambda: now.queue.jobs[0].state is State.DOWNLOADING)
        assert [job.state.value for job in now.queue.jobs] == ["downloading", "pending", "pending"]
        await now.until(lambda: now.worker.progress(now.queue.jobs[0]) is not None)
        fake.release(digests[0])
        for text in "abc":
            assert await now.over(text) == "completed"
        finished = sorted(await now.queue.history(10), key=lambda job: str(job.finished_at))
        assert [job.name.model for job in finished] == ["a", "b", "c"]


async def test_a_client_that_reads_keeps_its_fill(tmp_path: Path) -> None:
    """The end of the night ends nobody's own pull."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, SIZE)
        fake.hold(digest, offset=1_000_000)
        async with night(tmp_path, mirror) as now:
            await now.want("m")
            now.clock.move(hours=10)
            await now.until(lambda: here(mirror, digest) >= 500_000)
            path = f"/v2/library/m/blobs/{digest}"
            async with client.session.get(client.url(path)) as answer:
                now.clock.move(hours=8)
                await now.until(lambda: now.queue.jobs[0].state is State.PENDING)
                fake.release(digest)
                assert await answer.read() == content


async def test_what_is_kept_fresh_is_asked_for_every_night(tmp_path: Path) -> None:
    """One question a night, and bytes only when it has changed; people come first."""
    async with (
        running_fake_registry() as fake,
        mirrored(tmp_path, fake) as (mirror, _),
        night(tmp_path, mirror, most=1, keep=("m",)) as now,
    ):
        add_blob(fake, SIZE)
        add_blob(fake, SIZE, "library/wanted:latest", seed=1)
        await now.want("wanted")
        now.clock.move(hours=10)
        await now.until(lambda: len(fake.asked("manifest")) == 2)
        assert await now.over("m") == "completed"
        assert [entry.path.split("/")[3] for entry in fake.asked("manifest")] == ["wanted", "m"]
        sent = fake.blob_bytes_sent()
        await now.a_day()
        await now.until(lambda: len(fake.asked("manifest")) == 3)
        assert await now.over("m") == "completed"
        assert fake.blob_bytes_sent() == sent
        changed, digest = add_blob(fake, SIZE, seed=2)
        await now.a_day()
        await now.until(lambda: fake.blob_bytes_sent(digest) >= len(changed))
        assert await now.over("m") == "completed"


async def test_what_nobody_foresaw_ends_one_job_and_not_the_service(tmp_path: Path) -> None:
    """The mirror's tasks live in one group: an error that gets away would stop them all."""

    async def broken(*_: object, **__: object) -> PullProgress:
        raise RuntimeError("nobody foresaw this")

    engine = await open_database(None, tmp_path / "queue.db")
    clock = NightClock()
    try:
        queue = Queue(engine, 100, clock.now)
        worker = Worker(queue, broken, Schedule((), ZoneInfo("UTC")), clock, most=1, tries=1, retry_delay_s=1)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(worker.run())
            now = Night(clock, queue, worker)
            for text in ("a", "b"):
                await now.want(text, at_once=True)
                assert await now.over(text) == "failed"
            working.cancel()
        assert (await queue.history(1))[0].error == "something nobody foresaw; the log has it"
    finally:
        await engine.dispose()
