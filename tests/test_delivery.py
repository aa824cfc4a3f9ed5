"""A model on its way from the store to Ollamas: pulled from the mirror, or linked, and no name left behind."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from mirror.access import Passes
from mirror.access.seals import Seal
from mirror.demo.model import MODEL_TYPE
from mirror.errors import NotDelivered
from mirror.values import ModelName
from tests.behind import NOBODY, Fronted, fronted
from tests.fakes.ollama import FakeOllama, running_fake_ollama
from tests.fakes.ollama_trouble import Trouble
from tests.fakes.registry import FakeRegistry
from tests.stored import manifest_of
from tests.support import SOON_S, noise

NAME = ModelName.parse("far")


def hold(registry: FakeRegistry, name: ModelName, size: int = 1000) -> None:
    """Have the registry hold a model whose weights are its own."""
    weights = noise(size, len(name.model))
    registry.add_model(f"{name.repository}:{name.tag}", {MODEL_TYPE: weights})


async def stored(at: Fronted, text: str = "far", size: int = 300_000) -> ModelName:
    """Have a model in the mirror's store, and nowhere else."""
    name = ModelName.parse(text)
    hold(at.registry, name, size)
    await at.mirror.parts.puller.pull(name, lambda _: None)
    at.registry.log.clear()
    return name


def names(ollama: FakeOllama) -> set[str]:
    """Every name that an Ollama lists."""
    return {one.short for one in ollama.folder.names()}


async def test_an_ollama_pulls_from_the_mirror_and_keeps_the_plain_name_alone(tmp_path: Path) -> None:
    """Its manifest is the upstream's to the byte, each blob is there once, and upstream nothing is asked for."""
    async with fronted(tmp_path) as at:
        name = await stored(at)
        lines: list[str] = []
        await at.mirror.parts.deliveries.deliver(name, lambda step: lines.append(step.digest))
        assert names(at.ollama) == {"m:latest", "far:latest"}
        kept = at.mirror.parts.store.complete.find(name)
        assert kept is not None
        assert at.ollama.folder.manifest(name).read_bytes() == kept.path.read_bytes()
        assert at.ollama.folder.blobs >= {blob.digest.filename for blob in kept.blobs}
        assert len([one for one in lines if one]) == len(kept.blobs)
        assert at.registry.log == []
        before = len(at.ollama.troubles.of("/api/pull"))
        await at.mirror.parts.deliveries.deliver(name)
        assert len(at.ollama.troubles.of("/api/pull")) == before == 1


async def test_a_model_of_another_registry_keeps_its_host(tmp_path: Path) -> None:
    """hf.co/user/repo is pulled from the mirror all the same, though no name at the mirror means it."""
    async with fronted(tmp_path) as at:
        upstreams = [{"name": "lan", "url": at.registry.url, "hosts": ["hub.lan"]}]
        async with fronted(tmp_path / "two", upstreams=upstreams) as other:
            name = ModelName.parse("hub.lan/ns/far:8b")
            hold(at.registry, name)
            await other.mirror.parts.puller.pull(name, lambda _: None)
            await other.mirror.parts.deliveries.deliver(name)
            assert "hub.lan/ns/far:8b" in names(other.ollama)


@pytest.mark.parametrize("path", ["/api/pull", "/api/copy"])
async def test_what_fails_leaves_no_long_name_and_is_said(path: str, tmp_path: Path) -> None:
    """The next try finds the blobs that are there."""
    async with fronted(tmp_path) as at:
        name = await stored(at)
        at.ollama.troubles.add(Trouble.STATUS, path, status=500)
        with pytest.raises(NotDelivered, match="the runner has stopped"):
            await at.mirror.parts.deliveries.deliver(name)
        assert names(at.ollama) == {"m:latest"}
        await at.mirror.parts.deliveries.deliver(name)
        assert names(at.ollama) == {"m:latest", "far:latest"}


async def test_a_delivery_that_is_given_up_leaves_no_long_name(tmp_path: Path) -> None:
    """Cancelled while the Ollama copies."""
    async with fronted(tmp_path) as at, asyncio.timeout(SOON_S):
        name = await stored(at)
        at.ollama.troubles.add(Trouble.HOLD, "/api/copy")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(at.mirror.parts.deliveries.deliver(name))
            await at.ollama.troubles.wait_for(lambda: bool(at.ollama.troubles.of("/api/copy")))
            assert len(names(at.ollama)) == 2
            task.cancel()
        assert names(at.ollama) == {"m:latest"}


async def test_names_that_a_killed_mirror_left_are_swept(tmp_path: Path) -> None:
    """Those of this mirror only: another's may be on their way."""
    async with fronted(tmp_path) as at:
        name = await stored(at)
        mark = Seal.opened(tmp_path / "state", 60).instance()
        ours, others = f"10.0.0.5:11434/handed-{mark}-{'a' * 32}/far:latest", f"10.0.0.6/handed-x-{'a' * 32}/far:latest"
        for left in (ours, others):
            at.ollama.folder.add(left)
        await at.mirror.parts.deliveries.deliver(name)
        assert names(at.ollama) == {"m:latest", "far:latest", others}


async def test_ten_deliveries_of_one_model_are_one_pull(tmp_path: Path) -> None:
    """Ten people who want what is stored cost the Ollama one copy of it."""
    async with fronted(tmp_path) as at, asyncio.timeout(SOON_S):
        name = await stored(at)
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(at.mirror.parts.deliveries.deliver(name))
        assert len(at.ollama.troubles.of("/api/pull")) == 1


async def test_where_pulling_needs_a_key_the_ollama_is_let_in_for_that_model_alone(tmp_path: Path) -> None:
    """While the delivery runs, and to what it is about."""
    async with (
        fronted(tmp_path, security__api_key="k" * 20, security__anonymous=["none"]) as at,
        asyncio.timeout(SOON_S),
    ):
        name = await stored(at)
        other = await stored(at, "other")
        at.ollama.troubles.add(Trouble.HOLD, "/api/copy")
        async with asyncio.TaskGroup() as group:
            group.create_task(at.mirror.parts.deliveries.deliver(name))
            await at.ollama.troubles.wait_for(lambda: bool(at.ollama.troubles.of("/api/copy")))
            (told,) = at.ollama.troubles.of("/api/pull")
            long = ModelName.parse(json.loads(told.body)["model"])
            manifest = f"/v2/{long.repository}/manifests/latest"
            assert (await at.client.get(manifest)).status == 200
            shouted = f"/v2/{long.namespace.upper()}/FAR/manifests/latest"
            assert (await at.client.get(shouted)).status == 200
            theirs = at.mirror.parts.store.complete.find(other)
            assert theirs is not None
            weights = max(theirs.blobs, key=lambda blob: blob.size)
            assert (await at.client.get(f"/v2/{long.repository}/blobs/{weights.digest}")).status == 404
            assert (await at.client.get("/v2/library/far/manifests/latest")).status == 401
            at.ollama.troubles.clear()
        assert (await at.client.get(manifest)).status == 401
        assert "far:latest" in names(at.ollama)


async def test_where_the_folder_is_known_blobs_are_linked(tmp_path: Path) -> None:
    """One file under two names; a blob that is there half, as older Ollamas leave them, is replaced."""
    theirs = tmp_path / "ollama"
    async with running_fake_ollama(theirs) as ollama:
        to = [{"url": ollama.url, "folder": str(theirs)}]
        async with fronted(tmp_path / "mirror", pulls__deliver_to=to) as at:
            name = await stored(at)
            kept = at.mirror.parts.store.complete.find(name)
            assert kept is not None
            weights = max(kept.blobs, key=lambda blob: blob.size)
            (theirs / "blobs").mkdir(parents=True)
            ollama.folder.blob(weights.digest).write_bytes(b"half")
            await at.mirror.parts.deliveries.deliver(name)
            ours = at.mirror.parts.store.layout.blob(weights.digest)
            assert os.path.samefile(ours, ollama.folder.blob(weights.digest))
            assert (names(ollama), names(at.ollama)) == ({"far:latest"}, {"m:latest"})
            assert ollama.troubles.of("/api/pull") == []
            assert {one[:7] for one in os.listdir(theirs / "blobs")} == {"sha256-"}
            assert sorted(os.listdir(theirs)) == ["blobs", "manifests"]


async def test_each_ollama_gets_what_it_wants_and_one_that_is_down_stops_no_other(tmp_path: Path) -> None:
    """A list of URLs and groups; the error names the one that failed."""
    async with running_fake_ollama(tmp_path / "one") as one, running_fake_ollama(tmp_path / "two") as two:
        to = [{"url": one.url, "models": ["far*"]}, {"url": two.url, "models": ["big*"]}, {"url": NOBODY}]
        async with fronted(tmp_path, pulls__deliver_to=to) as at:
            name = await stored(at)
            with pytest.raises(NotDelivered, match=NOBODY) as failed:
                await at.mirror.parts.deliveries.deliver(name)
            assert one.url not in str(failed.value)
            assert (names(one), names(two), names(at.ollama)) == ({"far:latest"}, set(), {"m:latest"})


@pytest.mark.parametrize("way", ["none", "link"])
async def test_a_way_that_is_set_is_the_only_one(way: str, tmp_path: Path) -> None:
    """None is none; link without a folder says what is missing."""
    async with fronted(tmp_path, pulls__delivery=way) as at:
        name = await stored(at)
        if way == "link":
            with pytest.raises(NotDelivered, match="its folder is not known"):
                await at.mirror.parts.deliveries.deliver(name)
        else:
            assert not await at.mirror.parts.deliveries.wanted(name)
            await at.mirror.parts.deliveries.deliver(name)
        assert names(at.ollama) == {"m:latest"}


async def test_what_is_not_whole_is_not_delivered(tmp_path: Path) -> None:
    """It may have been evicted meanwhile."""
    async with fronted(tmp_path) as at:
        with pytest.raises(NotDelivered, match="not whole in the store"):
            await at.mirror.parts.deliveries.deliver(NAME)


async def test_the_address_that_is_set_is_the_one_it_pulls_from(tmp_path: Path) -> None:
    """For an Ollama in a container, which does not reach the mirror where the mirror reaches it."""
    async with fronted(tmp_path, server__public_url="http://127.0.0.1:9") as at:
        name = await stored(at)
        with pytest.raises(NotDelivered, match=r"it pulls from 127\.0\.0\.1:9: .* set server\.public_url"):
            await at.mirror.parts.deliveries.deliver(name)


def test_a_pass_dies_with_its_context() -> None:
    """And is found in any letter case before."""
    passes = Passes("0a")
    manifest = manifest_of(b"w")
    with passes.issued(NAME, manifest, [manifest.digest]) as one:
        assert passes.of(one.namespace.upper()) is one
        assert passes.of_path(f"/v2/{one.namespace}/far/manifests/latest") is one
        assert not passes.is_left_over(one.name_at("h"))
        assert passes.of("library") is None
    assert passes.of(one.namespace) is None
    assert passes.is_left_over(one.name_at("h"))
