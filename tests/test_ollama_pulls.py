"""What it is all for: Ollama's two ways of pulling, through the mirror."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mirror.demo.model import MODEL_TYPE, DemoModel, write_model
from mirror.demo.ollama import PullFailed, PullReport, pull, pull_tensor
from mirror.demo.registry import running_registry
from mirror.store import Problem, verify
from mirror.values import Manifest, ModelName
from tests.fakes import Fault, Wrong
from tests.fakes.docker_registry import running_docker_registry, skip_without
from tests.fakes.push import push_model
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.support import locates, mirrored, noise

TENSOR = "application/vnd.ollama.image.tensor"
Pull = Callable[[str], Coroutine[Any, Any, PullReport]]


async def classic(url: str) -> PullReport:
    """Pull as most models are, in parts of a megabyte."""
    return await pull(url, "m", part_min=1_000_000, pause_s=0.05, stall_s=5)


async def tensor(url: str) -> PullReport:
    """Pull as tensor models are."""
    return await pull_tensor(url, "m", resume_min=1_000_000)


def hold_model(fake: FakeRegistry) -> Manifest:
    """Have a model of several blobs."""
    layers = {MODEL_TYPE: noise(9_000_001), TENSOR: noise(2_500_000, 1), "text/plain": b"license"}
    return fake.add_model("library/m", layers)


@pytest.mark.parametrize("redirects", [True, False])
@pytest.mark.parametrize("way", [classic, tensor])
async def test_cold_joined_and_warm(way: Pull, redirects: bool, tmp_path: Path) -> None:
    """The model crosses the line once, for the first, for who joins, and for all who come later."""
    async with running_fake_registry(redirects=redirects) as fake, mirrored(tmp_path, fake) as (mirror, _):
        manifest = hold_model(fake)
        async with asyncio.TaskGroup() as group:
            cold = [group.create_task(way(mirror.url)) for _ in range(3)]
        warm = await way(mirror.url)

        assert {task.result().manifest.digest for task in cold} == {manifest.digest}
        assert fake.blob_bytes_sent() == manifest.size + locates(fake)
        assert set(warm.x_mirror_cache) == {"HIT"}
        assert len(fake.asked("manifest")) == 1
    assert not [step for step in verify(mirror.parts.store.layout) if isinstance(step, Problem)]
    stored = mirror.parts.store.complete.find(ModelName.parse("m"))
    assert stored is not None
    assert stored.digest == manifest.digest


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Wrong.STATUS, times=3, value=500),
        Fault(Wrong.STATUS, "manifest", times=1, value=503),
        Fault(Wrong.BUSY, times=2, text="0"),
        Fault(Wrong.CUT, times=6, value=400_000),
        Fault(Wrong.STALL, times=1, value=100_000),
        Fault(Wrong.LENGTH, times=3, value=5),
        Fault(Wrong.RANGE, times=3, value=5),
        Fault(Wrong.WHOLE, times=3),
        Fault(Wrong.STATUS, times=3, value=403),
        Fault(Wrong.TYPE, "manifest", text="text/plain"),
        Fault(Wrong.STATUS, "head", value=405),
    ],
    ids=lambda fault: f"{fault.wrong}-{fault.to}",
)
@pytest.mark.parametrize("way", [classic, tensor])
async def test_an_upstreams_bad_moments_are_not_ollamas(way: Pull, fault: Fault, tmp_path: Path) -> None:
    """The client sees no error, and right bytes: it checks them."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        manifest = hold_model(fake)
        fake.faults.add(fault)
        assert (await way(mirror.url)).manifest == manifest
        assert set((await way(mirror.url)).x_mirror_cache) == {"HIT"}


async def test_wrong_bytes_never_become_a_model(tmp_path: Path) -> None:
    """Ollama would keep them: its second pull looks at sizes only."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        hold_model(fake)
        fake.faults.add(Fault(Wrong.CORRUPT, value=1))
        with pytest.raises(PullFailed):
            await pull(mirror.url, "m", part_min=1_000_000, pause_s=0.01, probe_s=1)
        with pytest.raises(PullFailed):
            await tensor(mirror.url)
        fake.faults.clear()
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        manifest = hold_model(fake)
        assert (await classic(mirror.url)).manifest == manifest


async def test_an_unknown_model_is_told_in_ollamas_words(tmp_path: Path) -> None:
    """Its command line looks for exactly these."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        with pytest.raises(PullFailed, match=r"^pull model manifest: file does not exist$"):
            await classic(mirror.url)


async def test_letter_case_of_names_does_not_matter(tmp_path: Path) -> None:
    """Ollama rewrites it, part by part, to match what it has."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        manifest = hold_model(fake)
        await classic(mirror.url)
        assert (await pull(mirror.url, "LIBRARY/M:Latest")).manifest == manifest
        assert len(fake.asked("manifest")) == 1


@pytest.fixture
def model(tmp_path: Path) -> DemoModel:
    """A model on disk."""
    return write_model(tmp_path / "model", size=5_000_000, name="library/m")


async def test_a_registry_like_ollamas_is_mirrored(model: DemoModel, tmp_path: Path) -> None:
    """Behind the real headers, addresses that expire at once among them."""
    async with running_registry(model.folder, valid_s=0.5) as registry, running_fake_registry() as fake:
        fake.url = registry.url
        async with mirrored(tmp_path, fake) as (mirror, _):
            for way in (classic, tensor):
                assert (await way(mirror.url)).manifest.raw == model.manifest
            assert registry.counters.blob_bytes == model.size + registry.counters.requests["blob"]


@skip_without("docker-registry")
async def test_a_docker_registry_becomes_one_that_ollama_can_pull_from(model: DemoModel, tmp_path: Path) -> None:
    """By itself it is none: it says no Location."""
    (tmp_path / "docker").mkdir()
    async with running_docker_registry(tmp_path / "docker") as url, running_fake_registry() as fake:
        await push_model(url, model)
        fake.url = url
        async with mirrored(tmp_path, fake) as (mirror, _):
            for way in (classic, tensor):
                assert (await way(mirror.url)).manifest.raw == model.manifest
