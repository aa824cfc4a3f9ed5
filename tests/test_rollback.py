"""A tag back to what it meant before: by what is here, by what is fetched again, and held there."""

import asyncio
import json
from pathlib import Path

import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.errors import NotFoundUpstream, NothingEarlier, Offline, OnlyRead
from mirror.events import Reason
from mirror.pulls import State
from mirror.values import Digest, InvalidDigest, Manifest, ModelName
from mirror.values.manifest import OCI_INDEX
from tests.fakes.registry import running_fake_registry
from tests.night import night
from tests.stored import CONFIG, manifest_of, publish
from tests.support import MODEL, eventually, mirrored, noise, until
from tests.tagged import SIZE, back, known, meant, parts_of, publish_model, pulled, quiet, served, two


async def test_a_tag_that_moved_is_put_back_and_stays(tmp_path: Path) -> None:
    """Whoever asks, however often, and though the upstream moves on: clients, pulls, models kept fresh."""
    changes = {"cache__manifest_ttl": 0}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **changes) as (mirror, client):
        old, new = await pulled(mirror.parts, fake, 1, 2)
        assert known(mirror.parts) == [old.digest]
        sent = fake.blob_bytes_sent()
        final = await back(mirror.parts)
        assert (final.fetched, final.done, fake.blob_bytes_sent()) == (0, final.total, sent)
        assert (meant(mirror.parts), known(mirror.parts)) == (old.digest, [new.digest])
        publish_model(fake, 3)
        asked = len(fake.asked("manifest"))
        assert await served(client) == old.digest
        await mirror.parts.puller.pull(MODEL, quiet)
        async with night(tmp_path, mirror, keep=("m",)) as now:
            now.clock.move(hours=10)

            async def is_over() -> bool:
                return [job.state for job in await now.queue.history(9)] == [State.COMPLETED]

            await eventually(is_over)
        assert (meant(mirror.parts), await served(client)) == (old.digest, old.digest)
        assert (len(fake.asked("manifest")), fake.blob_bytes_sent()) == (asked, sent)


async def test_a_hold_that_is_ended_lets_the_tag_move(tmp_path: Path) -> None:
    """The next that asks gets what is upstream."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        _, new = await pulled(mirror.parts, fake, 1, 2)
        await back(mirror.parts)
        assert await mirror.parts.rollback.release(MODEL)
        assert not await mirror.parts.rollback.release(MODEL)
        await mirror.parts.puller.pull(MODEL, quiet)
        assert (meant(mirror.parts), await served(client)) == (new.digest, new.digest)


async def test_back_and_back_again_and_forward(tmp_path: Path) -> None:
    """Without a digest it goes one further each time, not to and fro; every one of them stays known."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        a, b, c = await pulled(mirror.parts, fake, 1, 2, 3)
        for expected in (b, a):
            await back(mirror.parts)
            assert meant(mirror.parts) == expected.digest
        with pytest.raises(NothingEarlier, match="nothing earlier is known of m:latest; mirror rollback --list"):
            mirror.parts.rollback.find(MODEL)
        await back(mirror.parts, c)
        assert (meant(mirror.parts), known(mirror.parts)) == (c.digest, [b.digest, a.digest])
        await back(mirror.parts)
        assert meant(mirror.parts) == b.digest


async def test_what_has_gone_is_fetched_again_and_the_tag_waits_for_it(tmp_path: Path) -> None:
    """For readers it is one moment: before, all of the new model; after, all of the old one."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        old, new = await pulled(mirror.parts, fake, 1, 2)
        [layer] = old.layers
        await mirror.parts.store.drop_loose([layer.digest])
        assert mirror.parts.rollback.find(MODEL).lacking == layer.size
        fake.hold(layer.digest, 1000)
        async with asyncio.TaskGroup() as group:
            going = group.create_task(back(mirror.parts))
            await until(mirror, lambda: any(fill.here >= 1000 for fill in mirror.parts.fills.in_flight))
            assert (meant(mirror.parts), await served(client)) == (new.digest, new.digest)
            fake.release(layer.digest)
            assert (await going).fetched == layer.size
        assert (meant(mirror.parts), await served(client)) == (old.digest, old.digest)
        assert (await client.get(f"/v2/library/m/blobs/{layer.digest}")).body == noise(SIZE, 1)


async def test_what_is_gone_upstream_too_is_said_and_nothing_changes(tmp_path: Path) -> None:
    """The tag, the hold and what is known are as they were."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        old, middle, new = await pulled(mirror.parts, fake, 1, 2, 3)
        await back(mirror.parts, middle)
        await mirror.parts.store.drop_loose([old.layers[0].digest])
        fake.forget(old.layers[0].digest)
        with pytest.raises(
            NotFoundUpstream, match=rf"m:latest cannot go back to {old.digest.short}, and stays as it is"
        ):
            await back(mirror.parts, old)
        assert (meant(mirror.parts), await served(client)) == (middle.digest, middle.digest)
        assert known(mirror.parts) == [new.digest, old.digest]
        held = mirror.parts.ledger.tags.held(MODEL)
        assert held
        assert held.digest == middle.digest


async def test_offline_it_takes_what_is_here(tmp_path: Path) -> None:
    """And says how much is not."""
    old, new = await two(tmp_path)
    async with parts_of(tmp_path) as parts:
        await parts.store.drop_loose([old.layers[0].digest])
        with pytest.raises(Offline, match="2997 bytes of it are not in the store, and the mirror is offline"):
            await back(parts)
        assert (meant(parts), parts.ledger.tags.held(MODEL)) == (new.digest, None)
        await parts.store.arrived(publish(parts.store.layout, b"old" * 999))
        await back(parts)
        assert meant(parts) == old.digest


async def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    """Each in words of its own."""
    old, new = await two(tmp_path)
    async with parts_of(tmp_path) as parts:
        find = parts.rollback.find
        for text in (str(old.digest), old.digest.hex, old.digest.hex[:4].upper(), old.digest.filename):
            assert find(MODEL, text).digest == old.digest
        with pytest.raises(NothingEarlier, match=r"nothing earlier is known of other:latest$"):
            find(ModelName.parse("other"))
        with pytest.raises(NothingEarlier, match=f"m:latest is at {new.digest.short} now"):
            find(MODEL, str(new.digest))
        with pytest.raises(NothingEarlier, match="not known to have meant one that begins with 000000000000; mirror"):
            find(MODEL, "0" * 64)
        for text in ("", "abc", "latest", "sha512:" + "0" * 64, "0" * 65):
            with pytest.raises(InvalidDigest, match="first digits"):
                find(MODEL, text)
        parts.ledger.tags.replaced(MODEL, *twins())
        with pytest.raises(NothingEarlier, match="more than one manifest begins with"):
            find(MODEL, twins()[0].digest.hex[:4])


def twins() -> tuple[Manifest, Manifest]:
    """Two manifests whose digests begin alike."""
    seen: dict[str, Manifest] = {}
    for number in range(100_000):
        one = manifest_of(b"", number=number)
        other = seen.setdefault(one.digest.hex[:4], one)
        if other is not one:
            return other, one
    raise AssertionError("sha256 is not what it was")


async def test_the_hold_survives_a_restart_and_a_lost_database_costs_it_alone(tmp_path: Path) -> None:
    """The tag is where it was put, as the manifest on disk says."""
    async with running_fake_registry() as fake:
        async with mirrored(tmp_path, fake) as (mirror, _):
            old, new = await pulled(mirror.parts, fake, 1, 2)
            await back(mirror.parts)
        async with mirrored(tmp_path, fake, cache__manifest_ttl=0) as (mirror, client):
            assert await served(client) == old.digest
            await mirror.parts.puller.pull(MODEL, quiet)
            assert (meant(mirror.parts), known(mirror.parts)) == (old.digest, [new.digest])
        for path in (tmp_path / "state").glob("mirror.db*"):
            path.unlink()
        async with mirrored(tmp_path, fake, cache__manifest_ttl=0) as (mirror, client):
            assert (meant(mirror.parts), known(mirror.parts)) == (old.digest, [])
            assert await served(client) == new.digest


async def test_what_went_for_room_comes_back_as_it_was_held(tmp_path: Path) -> None:
    """Limits may drop a held model; nobody has taken back the hold. Who removes it does."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        old, new = await pulled(mirror.parts, fake, 1, 2)
        await back(mirror.parts)
        await mirror.parts.store.remove(MODEL, Reason.SIZE, "a test")
        assert await served(client) == old.digest
        await mirror.parts.puller.pull(MODEL, quiet)
        assert (meant(mirror.parts), known(mirror.parts)) == (old.digest, [new.digest])
        await mirror.parts.store.remove(MODEL)
        assert known(mirror.parts) == []
        await mirror.parts.puller.pull(MODEL, quiet)
        assert meant(mirror.parts) == new.digest


async def test_what_an_ollama_brought_in_stays(tmp_path: Path) -> None:
    """One folder for both: its models are its own."""
    old, _ = await two(tmp_path)
    theirs = manifest_of(b"theirs")
    path = tmp_path / "store" / "manifests" / MODEL.host / MODEL.namespace / MODEL.model / MODEL.tag
    async with parts_of(tmp_path, cache__shared_with_ollama=True) as parts:
        for content in (b"theirs", CONFIG):
            (tmp_path / "store" / "blobs" / Digest.of(content).filename).write_bytes(content)
        path.write_bytes(theirs.raw)
        await parts.store.refresh()
        with pytest.raises(OnlyRead, match="brought in by the Ollama"):
            await parts.store.put_back(MODEL, old)
        parts.store.layout.blob(old.layers[0].digest).unlink()  # nor is it fetched first
        with pytest.raises(OnlyRead, match="brought in by the Ollama"):
            await back(parts, old)
        assert path.read_bytes() == theirs.raw


async def test_an_index_goes_back_with_all_it_names(tmp_path: Path) -> None:
    """Multi-platform images are such."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        child = fake.add_model("library/m:child", {MODEL_TYPE: noise(SIZE, 5)})
        entry = {"mediaType": child.media_type, "digest": str(child.digest), "size": len(child.raw)}
        index = fake.add_manifest("library/m", json.dumps({"mediaType": OCI_INDEX, "manifests": [entry]}).encode())
        await mirror.parts.puller.pull(MODEL, quiet)
        await pulled(mirror.parts, fake, 1)
        await mirror.parts.store.drop_loose([child.digest, child.layers[0].digest])
        assert (await back(mirror.parts)).fetched == child.layers[0].size
        assert meant(mirror.parts) == index.digest
        assert mirror.parts.store.blobs.size(child.layers[0].digest) == SIZE


async def test_a_tag_of_which_nothing_is_here_is_put_back_too(tmp_path: Path) -> None:
    """All of it went for room; what it meant is known."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        old, _ = await pulled(mirror.parts, fake, 1, 2)
        await mirror.parts.store.remove(MODEL, Reason.SIZE, "a test")
        await back(mirror.parts, old)
        assert meant(mirror.parts) == old.digest
