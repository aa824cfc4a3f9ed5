"""A running mirror whose disk fills up, or stops taking writes, under those who read and pull."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.values import ModelName
from tests.disks import fill_up, small_disk
from tests.fakes.registry import running_fake_registry
from tests.stored import files, problems
from tests.support import MODEL, add_blob, blob_path, eventually, mirrored, parts

SIZE = 2_500_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    with small_disk(tmp_path / "small") as place:
        yield place


async def test_a_disk_that_fills_up_under_sixteen_readers(small: Path) -> None:
    """They all get their bytes, the partial's room is given back, and the next start is clean."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, SIZE)
        async with mirrored(small, fake) as (running, client):
            await client.manifest()
            fake.hold(digest, 500_000)
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(client.get(blob_path(digest), span)) for span in parts(SIZE)]

                async def begun() -> bool:
                    fill = running.parts.fills.running(digest)
                    return fill is not None and fill.here >= 400_000

                await eventually(begun)
                filler = fill_up(small)
                fake.release(digest)
            assert b"".join(one.result().body for one in reading) == content
            assert files(small / "state" / "partial") == set()
            assert running.parts.store.room.coming == {}
            filler.unlink()
        async with mirrored(small, fake) as (running, client):
            assert (running.parts.store.problems, problems(running.parts.store.layout)) == ([], [])
            await running.parts.puller.pull(MODEL, lambda _: None)
            assert (await client.get(blob_path(digest))).cache == "HIT"


async def test_an_old_model_makes_room_on_a_disk_that_must_keep_some_free(small: Path) -> None:
    """Two models of 2.5 MB, a disk of 4 MB: the one used last stays."""
    async with running_fake_registry() as fake:
        add_blob(fake, SIZE, "library/old:latest", seed=1)
        content, digest = add_blob(fake, SIZE, "library/new:latest", seed=2)
        async with mirrored(small, fake, cache__min_free="500kB", cache__low_water="100%") as (running, client):
            await running.parts.puller.pull(ModelName.parse("old"), lambda _: None)
            await client.manifest("/v2/library/new/manifests/latest")
            assert (await client.get(blob_path(digest, "library/new"))).body == content
            assert (await client.get(blob_path(digest, "library/new"))).cache == "HIT"
            assert running.parts.store.find(ModelName.parse("old")) is None
            room = os.statvfs(small)
            assert room.f_bavail * room.f_frsize >= 500_000


async def test_a_store_that_becomes_read_only_serves_on(tmp_path: Path) -> None:
    """Hits as before, misses passed through, commands told why; and when it is mended, all is as it was."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, 300_000)
        other, unknown = add_blob(fake, 300_001, "library/other:latest", seed=1)
        async with mirrored(tmp_path, fake) as (running, client):
            store = running.parts.store
            await running.parts.puller.pull(MODEL, lambda _: None)
            with unwritable(store.layout.root):
                assert (await client.get(blob_path(digest))).body == content
                missed = await client.get(blob_path(unknown, "library/other"))
                assert (missed.body, missed.broken) == (other, False)
                for path in ("/mirror/v1/models/m", "/mirror/cache"):
                    answer = await client.get(path, method="DELETE")
                    assert answer.status == 507
                    assert "cannot be written" in json.loads(answer.body)["detail"]
                assert store.complete.find(MODEL) is not None
                assert (await client.get(blob_path(digest))).cache == "HIT"
            assert (await client.get("/mirror/cache", method="DELETE")).status == 200
            assert len(store.complete) == 0
            assert files(store.layout.root) == set()


@contextmanager
def unwritable(root: Path) -> Iterator[None]:
    """Nothing in these folders can be made, renamed or removed, whoever tries; what mount cannot do to open files."""
    folders = [str(path) for path in root.rglob("*") if path.is_dir()]
    done = subprocess.run(["chattr", "+i", *folders], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: folders cannot be made immutable here: {done.stderr.strip()!r}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *folders], check=True)
