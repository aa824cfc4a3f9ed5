"""A running mirror with limits: what is pulled, read, pinned and dropped at the same time."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirror.demo.model import MODEL_TYPE, manifest_bytes
from mirror.values import ByteRange, Descriptor, Digest, ModelName
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.process import mirror, serving
from tests.stored import problems
from tests.support import MANIFEST, MODEL, Machine, add_blob, blob_path, machine, mirrored, noise, written

LIMIT, SIZE = 1_000_000, 300_000


def add_models(fake: FakeRegistry, count: int) -> list[tuple[str, bytes, Digest]]:
    """Hold models m0, m1 ... of 300 kB each."""
    return [(f"m{at}", *add_blob(fake, SIZE, f"library/m{at}:latest", seed=at)) for at in range(count)]


async def pull(client: Machine, name: str, digest: Digest) -> bytes:
    """Pull one model's manifest, config and blob as a client does."""
    manifest = await client.manifest(f"/v2/library/{name}/manifests/latest")
    bodies = {one.digest: (await client.get(blob_path(one.digest, f"library/{name}"))).body for one in manifest.blobs}
    return bodies[digest]


async def test_ten_models_in_turn_through_a_small_store_while_two_are_read(tmp_path: Path) -> None:
    """The store stays within its limit, readers see right bytes and nothing else, and a pinned model survives."""
    async with running_fake_registry() as fake:
        models = add_models(fake, 10)
        changes = {"cache__max_size": LIMIT, "cache__low_water": "100%", "cache__pinned": "m2"}
        async with mirrored(tmp_path, fake, **changes) as (running, client), machine(running.url) as other:
            store, most = running.parts.store, 0
            for name, content, digest in models[:2]:
                assert await pull(client, name, digest) == content
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(read_without_end(other, *model)) for model in models[:2]]
                for name, content, digest in models[2:]:
                    assert await pull(client, name, digest) == content
                    most = max(most, sum(size for _, size in store.blobs))
                for task in reading:
                    task.cancel()
            assert most <= LIMIT
            assert store.complete.find(ModelName.parse("m2")) is not None
            assert problems(store.layout) == []
            text = (await client.get("/metrics")).body.decode()
            assert 'mirror_evictions_total{kind="model",reason="size"}' in text
            assert "mirror_store_limit_bytes 1e+06" in text


async def read_without_end(client: Machine, name: str, content: bytes, digest: Digest) -> None:
    """Read one blob over and over, in two ranges; every byte must be right, kept or not."""
    while True:
        for span in (ByteRange(0, SIZE // 2), ByteRange(SIZE // 2, SIZE)):
            answer = await client.get(blob_path(digest, f"library/{name}"), span)
            assert (answer.status, answer.broken) == (206, False)
            assert answer.body == content[span.start : span.stop]


async def test_what_is_larger_than_the_limit_is_passed_through_and_not_kept(tmp_path: Path) -> None:
    """Promise 5: a limit must not be what stops the service; ranges too, and nothing is dropped for it."""
    async with running_fake_registry() as fake:
        small, big = add_models(fake, 1)[0], add_blob(fake, LIMIT + 1)
        async with mirrored(tmp_path, fake, cache__max_size=LIMIT) as (running, client):
            await pull(client, small[0], small[2])
            before = written(tmp_path)
            whole = await client.get(blob_path(big[1]))
            assert (whole.body, whole.cache) == (big[0], "PASS")
            part = await client.get(blob_path(big[1]), ByteRange(5, 700_000))
            assert (part.status, part.body, part.cache) == (206, big[0][5:700_000], "PASS")
            assert written(tmp_path) == before
            assert (await client.get(blob_path(small[2], "library/m0"))).cache == "HIT"
            assert running.parts.store.room.coming == {}


async def test_between_two_blobs_of_a_pull_nobody_takes_its_room(tmp_path: Path) -> None:
    """A client asks for one blob after the other; a model that comes meanwhile must not have the first half dropped."""
    async with running_fake_registry() as fake:
        layers = {f"{MODEL_TYPE}.{at}": noise(SIZE, 50 + at) for at in range(2)}
        manifest = fake.add_model("library/slow:latest", layers)
        other, digest = add_blob(fake, 2 * SIZE, "library/other:latest", seed=7)
        async with mirrored(tmp_path, fake, cache__max_size=LIMIT) as (running, client):
            await client.manifest("/v2/library/slow/manifests/latest")
            first, second = (blob_path(blob.digest, "library/slow") for blob in manifest.layers)
            assert (await client.get(first)).cache == "MISS"
            await client.manifest("/v2/library/other/manifests/latest")
            passed = await client.get(blob_path(digest, "library/other"))
            assert (passed.body, passed.cache) == (other, "PASS")
            assert (await client.get(second)).cache == "MISS"
            assert (await client.get(first)).cache == "HIT"
            assert running.parts.store.blobs.size(digest) is None


async def test_half_a_model_is_not_kept(tmp_path: Path) -> None:
    """Its first blobs would fit, its last would not: then none is kept, and nothing else is dropped for them."""
    async with running_fake_registry() as fake:
        (kept,) = add_models(fake, 1)
        layers = {f"{MODEL_TYPE}.{at}": noise(SIZE, 50 + at) for at in range(4)}
        manifest = fake.add_model("library/big:latest", layers)
        async with mirrored(tmp_path, fake, cache__max_size=LIMIT) as (running, client):
            await pull(client, kept[0], kept[2])
            await client.manifest("/v2/library/big/manifests/latest")
            for blob in manifest.layers:
                answer = await client.get(blob_path(blob.digest, "library/big"))
                assert (Digest.of(answer.body), answer.cache) == (blob.digest, "PASS")
            assert [one.name.model for one in running.parts.store.complete] == ["m0"]


async def test_a_pull_that_cannot_be_kept_is_refused_before_it_begins(tmp_path: Path) -> None:
    """Its size is known from the manifest: not a byte of it is fetched in vain."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, LIMIT + 1)
        async with serving(tmp_path / "store", fake.url, env={"OLLAMA_MIRROR_CACHE_MAX_SIZE": "1MB"}) as (url, _):
            refused = await mirror("prefetch", "m", "--server", url)
            assert refused.code == 1
            assert "no room for" in refused.err
            assert fake.blob_bytes_sent(digest) == 0
            assert content


@pytest.mark.parametrize("order", [1, -1])
async def test_a_manifest_with_a_blob_twice_and_an_empty_one_is_kept_and_dropped(tmp_path: Path, order: int) -> None:
    """Both are valid; sums must not count one blob twice."""
    async with running_fake_registry() as fake:
        layers = [Descriptor(fake.add_blob(one), len(one), MODEL_TYPE) for one in (b"twice" * 99, b"", b"twice" * 99)]
        config = Descriptor(fake.add_blob(b"{}"), 2, "application/vnd.docker.container.image.v1+json")
        fake.add_manifest("library/m:latest", manifest_bytes(config, layers[::order]))
        async with mirrored(tmp_path, fake, cache__max_size=LIMIT) as (running, _):
            final = await running.parts.puller.pull(MODEL, lambda _: None)
            assert final.done == final.total == 5 * 99 + 2
            assert running.parts.store.room.proven == 5 * 99 + 2
            assert await running.parts.store.remove(MODEL) == 5 * 99 + 2
            assert running.parts.store.room.proven == 0


async def test_a_model_of_five_thousand_layers_is_pulled_listed_and_dropped(tmp_path: Path) -> None:
    """Tensor models have thousands; nothing may take a time that grows with the square of them."""
    async with running_fake_registry() as fake:
        contents = [b"%d" % number for number in range(5000)]
        layers = [Descriptor(fake.add_blob(one), len(one), MODEL_TYPE) for one in contents]
        config = Descriptor(fake.add_blob(b"{}"), 2, "application/vnd.docker.container.image.v1+json")
        fake.add_manifest("library/m:latest", manifest_bytes(config, layers))
        blobs = tmp_path / "store" / "blobs"
        blobs.mkdir(parents=True)
        for content in contents[:-2]:
            (blobs / Digest.of(content).filename).write_bytes(content)
        async with mirrored(tmp_path, fake, cache__max_size=LIMIT) as (running, client):
            final = await running.parts.puller.pull(MODEL, lambda _: None)
            assert final.done == final.total
            view = json.loads((await client.get("/mirror/v1/models")).body)["models"][0]
            assert (view["complete"], view["blobs"]) == (True, 5001)
            made = await running.parts.keeper.plan(everything=True)
            assert [(row.what, row.frees) for row in made.rows] == [("m:latest", final.total)]
            assert await running.parts.store.remove(MODEL) == final.total


async def test_the_routes_of_the_store(tmp_path: Path) -> None:
    """What the commands do, for programs: usage, pins, a plan, and the first seed's way to clear everything."""
    async with running_fake_registry() as fake:
        models = add_models(fake, 3)
        async with mirrored(tmp_path, fake) as (running, client):
            for name, _, digest in models:
                await pull(client, name, digest)
            usage = json.loads((await client.get("/mirror/v1/store")).body)
            assert (usage["models"], usage["max_size"], usage["damaged_models"]) == (3, None, [])
            assert usage["size"] == sum(size for _, size in running.parts.store.blobs)
            pinned = await send(client, "POST", "/mirror/v1/store/pins", {"pattern": "m[12]"})
            assert pinned["status"] == 400
            pinned = await send(client, "POST", "/mirror/v1/store/pins", {"pattern": "m1"})
            assert pinned["pins"] == [{"pattern": "m1", "from": "command", "models": ["m1:latest"]}]
            plan = await client.get("/mirror/v1/store/gc", method="POST")
            assert json.loads(plan.body.splitlines()[-1])["removed"] == 0
            dry = await send(client, "DELETE", "/mirror/cache?dry_run=true")
            assert (dry["removed"], dry["dry_run"], len(running.parts.store.complete)) == (2, True, 3)
            gone = await send(client, "DELETE", "/mirror/cache")
            assert (gone["status"], gone["removed"], gone["kept"]) == (
                "success",
                2,
                [{"name": "m1:latest", "why": "pinned by m1"}],
            )
            assert [one.name.model for one in running.parts.store.complete] == ["m1"]
            assert (await send(client, "DELETE", "/mirror/v1/store/pins/m1"))["pins"] == []
            assert (await send(client, "DELETE", "/mirror/v1/store/pins/m1"))["status"] == 404
            assert (await client.get(MANIFEST, Origin="http://evil.example")).status in (200, 404)
            evil = await client.get("/mirror/cache", method="DELETE", Origin="http://evil.example")
            assert evil.status == 403


async def send(client: Machine, method: str, path: str, body: object = None) -> dict[str, object]:
    """Ask the admin API; its answer as JSON."""
    async with client.session.request(method, client.url(path), json=body) as answer:
        said: dict[str, object] = await answer.json(content_type=None)
        return said


async def test_the_commands_of_the_store(tmp_path: Path) -> None:
    """Pin, look, tidy up, scrub; with and without a server, the same words."""
    async with running_fake_registry() as fake:
        add_models(fake, 3)
        store = tmp_path / "store"
        env = {"OLLAMA_MIRROR_UPSTREAM_URL": fake.url, "OLLAMA_MIRROR_CACHE_MAX_SIZE": "1MB"}
        at = ("--store", str(store))
        assert (await mirror("prefetch", "m0", "m1", "m2", *at, env=env)).code == 0
        assert "m0" in (await mirror("pin", "m0", *at)).out
        small = {**env, "OLLAMA_MIRROR_CACHE_MAX_SIZE": "700kB"}
        async with serving(store, fake.url, env={**small, "OLLAMA_MIRROR_CACHE_CLEANUP_INTERVAL": "30d"}) as (url, _):
            await both(url, at, small)
        listed = json.loads((await mirror("list", *at, "--json")).out)
        assert {one["name"]: one["pinned"] for one in listed}["m0:latest"] is True
        assert (await mirror("unpin", "m0", *at)).code == 0
        assert (await mirror("unpin", "m0", *at)).code == 1
        would = await mirror("rm", "m0", *at, "--dry-run")
        assert would.out == "m0:latest would go, 300 kB\n"
        assert (await mirror("rm", "--all", *at)).code == 0
        assert json.loads((await mirror("list", *at, "--json")).out) == []
        assert (await mirror("rm", *at)).code == 2


async def both(url: str, at: Sequence[str], env: dict[str, str]) -> None:
    """The server has tidied up at its start; what the commands then say of it."""
    plan = await mirror("gc", "--dry-run", "--server", url, env=env)
    assert plan.code == 0, plan.err
    assert "kept: m0:latest, pinned by m0" in plan.out
    usage = await mirror("usage", *at, env=env)
    assert "700 kB" in usage.out
    assert (await mirror("scrub", "--rate", "1GB/s", "--server", url)).out.endswith(" 0 damaged\n")
    assert (await mirror("repair", "--server", url)).out == "0 models repaired\n"
    assert (await mirror("gc", "--yes", "--server", url, "--json")).code == 0
