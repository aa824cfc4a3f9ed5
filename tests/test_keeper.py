"""The keeper: what the plan says is done, on real files, and nothing that came into use meanwhile is touched."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from mirror.errors import BrokenStore, StoreFull
from mirror.events import BlobServed, LeftoverRemoved, ModelRemoved, Reason, Served
from mirror.keep import Kind, Row
from mirror.store import Partial, Pins
from mirror.values import DEFAULT_HOST, ByteRange, Digest, Manifest, ModelName, NamePattern, RangeSet
from tests.kept import Kept, kept
from tests.stored import CONFIG, described, files, made, manifest_of, publish

KB = 1000
SIZE = 300 * KB


def layer(number: int) -> bytes:
    """A blob of 300 kB that no other model has."""
    return bytes([number]) * SIZE


async def four(store: Kept) -> None:
    """Models a, b, c, d, used in this order."""
    for number, name in enumerate("abcd"):
        await store.model(name, layer(number))


async def test_over_the_limit_the_least_recently_used_go(tmp_path: Path) -> None:
    """And their files with them, with a reason for whoever asks where they are."""
    async with kept(tmp_path, max_size=1_000 * KB, low_water="70%") as store:
        await four(store)
        store.use("a")
        done = await store.keeper.collect()
        assert store.names == {"a", "d"}
        assert [row.what for row, _ in done.done] == ["b:latest", "c:latest"]
        removed = [event for event in store.heard if isinstance(event, ModelRemoved)]
        assert [(one.name.short, one.freed, one.reason) for one in removed] == [
            ("b:latest", SIZE, Reason.SIZE),
            ("c:latest", SIZE, Reason.SIZE),
        ]
        assert files(store.store.layout.temporary) == set(), "what was removed is off the disk when it returns"
        assert store.store.room.proven == done.plan.size_after == 2 * SIZE + len(CONFIG)
        assert store.sound()


async def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    """A dry run is looked at without fear."""
    async with kept(tmp_path, max_size=400 * KB) as store:
        await four(store)
        before = files(tmp_path)
        assert [row.what for row in (await store.keeper.plan()).rows] == ["a:latest", "b:latest", "c:latest"]
        assert files(tmp_path) == before


async def test_pins_of_settings_and_of_people_hold(tmp_path: Path) -> None:
    """Also against retention, and for models that came after the pin."""
    async with kept(tmp_path, max_size=1, retention=1, pinned="a:*") as store:
        store.pins.add(NamePattern.parse("c"))
        await four(store)
        store.clock.now += timedelta(days=400)
        done = await store.keeper.collect()
        assert store.names == {"a", "c"}
        assert {name.short: why for name, why in done.plan.kept} == {
            "a:latest": "pinned by a:*",
            "c:latest": "pinned by c",
        }
        assert done.plan.short is not None


async def test_what_is_read_or_filled_stays(tmp_path: Path) -> None:
    """Promise 4: nobody's download is slowed by the tidying up of another's."""
    async with kept(tmp_path) as store:
        await four(store)
        await store.store.put_manifest(ModelName.parse("e"), manifest_of(layer(9)))
        with (
            store.store.blobs.open(Digest.of(layer(1))) or pytest.fail("it is there"),
            await store.keeper.promise({Digest.of(layer(9)): SIZE}),
        ):
            done = await store.keeper.collect(everything=True)
            assert store.names == {"b"}
            assert {name.short: why for name, why in done.plan.kept} == {
                "b:latest": "being read",
                "e:latest": "being filled",
            }
            assert store.store.staged.find(ModelName.parse("e")) is not None
        await store.keeper.collect(everything=True)
        assert (store.names, len(store.store.staged)) == (set(), 0)


async def test_a_model_that_is_all_there_needs_no_room(tmp_path: Path) -> None:
    """A store may be over its limit, after the limit was lowered: what it has is served and pulled all the same."""
    async with kept(tmp_path, max_size=1) as store:
        await four(store)
        (await store.keeper.promise({})).close()
        assert store.names == set("abcd")


async def test_what_came_into_use_after_the_plan_stays(tmp_path: Path) -> None:
    """Between the plan and its turn there may be seconds."""
    async with kept(tmp_path, max_size=1) as store:
        await four(store)

        def wake(row: Row, _: int) -> None:
            if row.what == "a:latest":
                store.use("b")
                store.pins.add(NamePattern.parse("c"))

        await store.keeper.collect(wake)
        assert store.names == {"b", "c"}


async def test_reading_blobs_is_a_use(tmp_path: Path) -> None:
    """A client that has the manifest asks for blobs only; its model is not the least recently used."""
    async with kept(tmp_path, max_size=1_000 * KB, low_water="100%") as store:
        await four(store)
        elsewhere = BlobServed(ModelName.parse("other"), Digest.of(layer(1)), Served.HIT, 5)
        store.events.publish(elsewhere)
        store.events.publish(BlobServed(ModelName.parse("A"), Digest.of(layer(0)), Served.HIT, 5))
        await store.keeper.collect()
        assert store.names == {"a", "c", "d"}, "another repository's reading of a shared blob is no use of b"


async def test_room_is_made_for_what_comes_in(tmp_path: Path) -> None:
    """Before its first byte; and given back when it does not come after all."""
    async with kept(tmp_path, max_size=1_300 * KB, low_water="100%") as store:
        await four(store)
        coming = {Digest.of(b"x"): 250 * KB, Digest.of(b"y"): 250 * KB}
        with await store.keeper.promise(coming) as promise:
            assert store.names == {"c", "d"}
            assert store.store.room.coming == coming
            with pytest.raises(StoreFull, match="limit"):
                store.store.room.promise({Digest.of(b"z"): 250 * KB})
            promise.landed(Digest.of(b"x"))
            assert store.store.room.coming == coming, "it counts until it has its name"
        assert store.store.room.coming == {}


async def test_what_cannot_fit_is_refused_and_nothing_dropped_for_it(tmp_path: Path) -> None:
    """To drop everything and refuse all the same would be the worst of both."""
    async with kept(tmp_path, max_size=1_300 * KB, pinned="a,b,c") as store:
        await four(store)
        for size in (1_301 * KB, 900 * KB):
            with pytest.raises(StoreFull, match=f"no room for {size} bytes"):
                await store.keeper.promise({Digest.of(b"x%d" % size): size})
        assert store.names == {"a", "b", "c", "d"}


async def test_many_who_want_room_at_once_are_given_it_once(tmp_path: Path) -> None:
    """Sixteen ranges of eight machines come together; the sum of what is promised is what counts."""
    async with kept(tmp_path, max_size=1_300 * KB, low_water="100%") as store:
        await four(store)
        one = {Digest.of(b"x"): 300 * KB}
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(store.keeper.promise(one)) for _ in range(16)]
        assert store.names == {"b", "c", "d"}
        assert sum(store.store.room.coming.values()) == 300 * KB
        for promise in asked:
            promise.result().close()
        assert store.store.room.coming == {}


async def test_free_space_is_kept_on_the_disk(tmp_path: Path) -> None:
    """A floor that the disk is already below takes everything that may go."""
    async with kept(tmp_path, min_free="100%") as store:
        await four(store)
        store.use("d")
        done = await store.keeper.collect()
        assert store.names == set()
        assert {row.reason for row, _ in done.done} == {Reason.FREE}
        assert done.plan.short is not None
        assert "free space" in done.plan.short
        with pytest.raises(StoreFull, match="the disk lacks"):
            await store.keeper.promise({Digest.of(b"x"): 1})


async def test_a_blob_orphaned_by_a_moved_tag_goes(tmp_path: Path) -> None:
    """It was what filled the disk of other mirrors without anybody knowing."""
    async with kept(tmp_path) as store:
        await store.model("a", layer(1))
        await store.model("a", layer(2))
        assert (await store.keeper.collect()).done == (), "not in its first day"
        store.clock.now += timedelta(days=1)
        await store.keeper.collect()
        assert files(store.store.layout.blobs) == {Digest.of(one).filename for one in (layer(2), CONFIG)}
        assert store.heard[-1] == LeftoverRemoved(
            "blob", f"sha256:{Digest.of(layer(1)).short}", SIZE, Reason.LOOSE, "no model names it"
        )


async def test_what_an_indexs_manifests_name_is_no_orphan(tmp_path: Path) -> None:
    """An index names manifests, which name the layers: two steps, and the layers are needed all the same."""
    async with kept(tmp_path) as store:
        child = manifest_of(layer(1))
        entry = described(child.raw, mediaType="application/vnd.oci.image.manifest.v1+json")
        index = {"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
        for content in (layer(1), CONFIG):
            await store.store.arrived(publish(store.store.layout, content))
        await store.store.put_small_blob(child.raw)
        await store.store.put_manifest(ModelName.parse("a"), Manifest.parse(json.dumps(index).encode()))
        await store.model("b", layer(1), layer(2))
        store.clock.now += timedelta(days=9)
        await store.keeper.collect()
        assert await store.store.remove(ModelName.parse("b")) == SIZE, "layer 2 alone: the index needs the other"
        left = {Digest.of(one).filename for one in (layer(1), CONFIG, child.raw)}
        assert files(store.store.layout.blobs) == left
        assert await store.store.remove(ModelName.parse("a")) == SIZE + len(CONFIG) + len(child.raw)
        assert files(store.store.layout.blobs) == set()


async def test_leftovers_go_after_their_time(tmp_path: Path) -> None:
    """An unfinished blob, the manifest that waits for it, and what was put aside; each is told of."""
    async with kept(tmp_path, partial_retention="7d") as store:
        layout = store.store.layout
        await store.store.put_manifest(ModelName.parse("a"), manifest_of(layer(1)))
        partial = Partial.open(layout, Digest.of(layer(1)), SIZE)
        partial.write(0, layer(1)[: SIZE // 2])
        partial.record(RangeSet([ByteRange(0, SIZE // 2)]))
        partial.close()
        (layout.quarantine / "bad").write_bytes(b"bad")
        with await store.keeper.promise({Digest.of(layer(1)): SIZE}):
            store.clock.now += timedelta(days=8)
            assert [row.what for row, _ in (await store.keeper.collect()).done] == ["bad"], "it is being filled"
        done = await store.keeper.collect()
        assert {row.kind for row, _ in done.done} == {Kind.PARTIAL, Kind.MANIFEST}
        assert (files(layout.partials), files(layout.staged), files(layout.quarantine)) == (set(), set(), set())
        assert len([event for event in store.heard if isinstance(event, LeftoverRemoved)]) == 3


async def test_everything_goes_when_asked_for_but_pins(tmp_path: Path) -> None:
    """The first seed's DELETE /mirror/cache; a pin outlives it."""
    async with kept(tmp_path, pinned="b") as store:
        await four(store)
        await store.store.arrived(publish(store.store.layout, b"loose"))
        done = await store.keeper.collect(everything=True)
        assert store.names == {"b"}
        assert {row.reason for row, _ in done.done} == {Reason.ASKED}
        assert files(store.store.layout.blobs) == {Digest.of(one).filename for one in (layer(1), CONFIG)}


async def test_uses_keep_their_order_though_the_clock_is_set_back(tmp_path: Path) -> None:
    """A machine without a battery starts in 1970, until it hears the time."""
    async with kept(tmp_path, max_size=1_000 * KB, low_water="70%", retention="30d") as store:
        await four(store)
        store.clock.now -= timedelta(days=20_000)
        for name in ("b", "a"):
            store.use(name)
            await store.ledger.flush()
        await store.keeper.collect()
        assert store.names == {"a", "b"}


async def test_blobs_stay_where_the_manifests_are_not_all_there(tmp_path: Path) -> None:
    """A folder that is not mounted for a moment must not look like models that were removed."""
    async with kept(tmp_path) as store:
        await four(store)
    for away in ("manifests", "manifests/registry.ollama.ai"):
        there, elsewhere = tmp_path / "store" / away, tmp_path / "elsewhere"
        there.rename(elsewhere)
        if away != "manifests":
            there.symlink_to(tmp_path / "not mounted")
        async with kept(tmp_path, max_size=1) as store:
            store.clock.now += timedelta(days=9)
            await store.keeper.collect()
            assert len(files(store.store.layout.blobs)) == 5
        there.unlink() if there.is_symlink() else there.rmdir()
        elsewhere.rename(there)
    async with kept(tmp_path) as store:
        assert store.names == set("abcd")


async def test_a_shared_small_blob_does_not_make_another_model_one_being_filled(tmp_path: Path) -> None:
    """Models share licences and templates; one that nobody goes on with must make room for one that comes."""
    async with kept(tmp_path, max_size=500 * KB, low_water="100%") as store:
        await store.store.arrived(publish(store.store.layout, layer(1)))
        for name, layers in (("old", [layer(1), layer(3)]), ("new", [layer(2)])):
            await store.store.put_manifest(ModelName.parse(name), manifest_of(*layers, b"licence"))
            store.use(name)
        with await store.keeper.promise({Digest.of(layer(2)): SIZE, Digest.of(b"licence"): 7, Digest.of(CONFIG): 24}):
            assert store.store.find(ModelName.parse("old")) is None
            assert store.store.find(ModelName.parse("new")) is not None


def test_pins_set_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    """Each was answered with yes."""
    pins = Pins(made(tmp_path), host=DEFAULT_HOST)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda number: pins.add(NamePattern.parse(f"m{number}")), range(40)))
    assert len(pins.of_people) == 40


def test_pins_are_kept_in_a_file_of_their_own(tmp_path: Path) -> None:
    """The database may be lost; a pin may not."""
    layout = made(tmp_path)
    pins = Pins(layout, host=DEFAULT_HOST)
    one, other = NamePattern.parse("qwen3:*"), NamePattern.parse("a")
    assert (pins.add(one), pins.add(one), pins.add(other)) == (True, False, True)
    again = Pins(layout, [NamePattern.parse("b")], host=DEFAULT_HOST)
    assert (again.of_people, again.of_settings) == ((one, other), (NamePattern.parse("b"),))
    assert again.why(ModelName.parse("QWEN3:8b")) == "pinned by qwen3:*"
    assert again.why(ModelName.parse("qwen2")) is None
    assert (again.remove(one), again.remove(one)) == (True, False)
    assert Pins(layout, host=DEFAULT_HOST).of_people == (other,)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"7", b"[7]", b'["a b"]', b"\xff", b'"m0"', b'{"m0": 1}', b"[" * 100_000]
)
def test_pins_that_cannot_be_read_stop_the_start(tmp_path: Path, content: bytes) -> None:
    """To go on without them would drop what somebody wanted to keep."""
    layout = made(tmp_path)
    (layout.state / "pins.json").write_bytes(content)
    with pytest.raises(BrokenStore, match=r"pins\.json"):
        Pins(layout, host=DEFAULT_HOST)
