"""A whole model into the store."""

import asyncio
import json
from pathlib import Path

import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.errors import DigestMismatch, MirrorError, NotFoundUpstream, UpstreamUnavailable
from mirror.fill import PullProgress
from mirror.values import ModelName
from mirror.values.manifest import OCI_INDEX
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.support import MODEL, add_blob, locates, mirrored, noise, until

SIZE = 6_000_000


def quiet(_: PullProgress) -> None:
    """Nobody looks at the progress."""


async def test_progress_rises_to_the_whole(tmp_path: Path) -> None:
    """And says how much of it came just now."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        add_blob(fake, SIZE)
        seen: list[PullProgress] = []
        final = await mirror.parts.puller.pull(MODEL, seen.append)
        assert seen[-1] == final
        assert final.done == final.total == final.fetched
        assert [one.done for one in seen] == sorted(one.done for one in seen)
        assert fake.blob_bytes_sent() == final.total + locates(fake)
        again = await mirror.parts.puller.pull(MODEL, quiet)
        assert (again.done, again.fetched) == (final.total, 0)


async def test_a_corrupt_byte_costs_a_pull_time_and_nothing_else(tmp_path: Path) -> None:
    """The fill begins again by itself, and the pull waits for it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        _, digest = add_blob(fake, SIZE)
        fake.faults.add(Fault(Wrong.CORRUPT, digest, times=2, value=100))
        final = await mirror.parts.puller.pull(MODEL, quiet)
        assert final.done == final.total
        assert mirror.parts.store.complete.find(MODEL) is not None


@pytest.mark.parametrize("negative_ttl", [0, 60])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(Wrong.CORRUPT, value=100), DigestMismatch),
        (Fault(Wrong.STATUS, value=500), UpstreamUnavailable),
        (Fault(Wrong.STATUS, "redirect", value=404), NotFoundUpstream),
        (Fault(Wrong.STATUS, "manifest", value=404), NotFoundUpstream),
    ],
    ids=lambda value: f"{value.wrong}-{value.to}" if isinstance(value, Fault) else None,
)
async def test_what_fails_is_raised_by_itself(
    fault: Fault, error: type[MirrorError], negative_ttl: float, tmp_path: Path
) -> None:
    """Not as a group of errors; and no task is left."""
    changes = {"cache__negative_ttl": negative_ttl}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **changes) as (mirror, _):
        add_blob(fake, SIZE)
        fake.faults.add(fault)
        with pytest.raises(error):
            await mirror.parts.puller.pull(MODEL, quiet)
        assert mirror.parts.store.complete.find(MODEL) is None


async def test_a_pull_that_is_given_up_leaves_what_came(tmp_path: Path) -> None:
    """With keep_filling off, its fills are parked; the next pull goes on."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, cache__keep_filling=False) as (mirror, _):
        _, digest = add_blob(fake, SIZE)
        fake.hold(digest, SIZE // 2)
        async with asyncio.TaskGroup() as group:
            pulling = group.create_task(mirror.parts.puller.pull(MODEL, quiet))
            await until(mirror, lambda: any(fill.here >= SIZE // 2 for fill in mirror.parts.fills.in_flight))
            pulling.cancel()
        fill = mirror.parts.fills.running(digest)
        if fill is not None:
            async with asyncio.timeout(5):
                await fill.ended.wait()
        fake.release(digest)
        final = await mirror.parts.puller.pull(MODEL, quiet)
        assert final.fetched <= SIZE // 2 + 1000


async def test_an_index_is_pulled_with_all_it_names(tmp_path: Path) -> None:
    """Multi-platform images are such."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        children = [fake.add_model(f"library/m:c{n}", {MODEL_TYPE: noise(50_000, n)}) for n in range(3)]
        entries = [{"mediaType": one.media_type, "digest": str(one.digest), "size": len(one.raw)} for one in children]
        fake.add_manifest("library/m", json.dumps({"mediaType": OCI_INDEX, "manifests": entries}).encode())
        await mirror.parts.puller.pull(ModelName.parse("m"), quiet)
        assert mirror.parts.store.complete.find(MODEL) is not None
        for child in children:
            assert mirror.parts.store.by_digest(child.digest) == child
            assert all(mirror.parts.store.blobs.size(blob.digest) == blob.size for blob in child.blobs)
