"""What people and programs look at."""

import asyncio
import hashlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mirror.app import running_mirror
from mirror.config import Settings, load
from mirror.demo.model import write_model
from mirror.demo.ollama import pull
from mirror.demo.registry import running_registry

_SEED_KEYS = {"cached_models", "total_cache_size", "cache_directory", "upstream_url", "models"}


def _settings(folder: Path, upstream: str, **more: object) -> Settings:
    flags: dict[str, object] = {
        "server.host": "127.0.0.1",
        "server.port": 0,
        "cache.directory": str(folder / "store"),
        "upstream.url": upstream,
        "upstream.retry_delay": "10ms",
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    return load(None, {}, flags).settings


async def _get(url: str, **options: Any) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url, **options) as answer:
        return answer.status, answer.content_type, await answer.text()


async def test_home_answers_by_what_is_accepted(tmp_path: Path) -> None:
    """A browser gets a page, a program JSON, and Ollama's clients the text they probe for."""
    async with running_mirror(_settings(tmp_path, "http://127.0.0.1:9")) as mirror:
        page = await _get(mirror.url, headers={"Accept": "text/html,*/*"})
        said = await _get(mirror.url, headers={"Accept": "application/json"})
        plain = await _get(mirror.url, headers={"Accept": "*/*"})
        async with aiohttp.ClientSession() as session, session.head(mirror.url) as beat:
            assert beat.status == 200
    assert page[:2] == (200, "text/html")
    assert "ollama pull --insecure 127.0.0.1" in page[2]
    assert json.loads(said[2])["name"] == "mirror"
    assert plain == (200, "text/plain", "Ollama is running")


async def test_stats_count_a_miss_and_a_hit(tmp_path: Path) -> None:
    """The first seed's keys are there as they were, and the bytes that the store has saved."""
    model = await asyncio.to_thread(write_model, tmp_path / "registry", size=2_000_000)
    async with (
        running_registry(tmp_path / "registry") as registry,
        running_mirror(_settings(tmp_path, registry.url)) as mirror,
    ):
        for _ in range(2):
            await pull(mirror.url, "library/demo:latest", part_min=500_000)
        stats = json.loads((await _get(f"{mirror.url}/mirror/stats"))[2])
        metrics = (await _get(f"{mirror.url}/metrics"))[2]
        tags = json.loads((await _get(f"{mirror.url}/api/tags"))[2])
        page = (await _get(mirror.url, headers={"Accept": "text/html"}))[2]
    assert stats.keys() > _SEED_KEYS
    assert [(one["name"], one["size"]) for one in stats["models"]] == [("demo:latest", model.size)]
    assert datetime.fromisoformat(stats["models"][0]["cached_at"]) <= datetime.now(UTC)
    assert stats["total_cache_size"] == model.size
    assert stats["bytes_fetched"] == model.size
    assert stats["bytes_served"] >= 2 * model.size
    assert stats["bytes_saved"] == stats["bytes_served"] - stats["bytes_fetched"]
    assert stats["hits"] > 0
    assert stats["misses"] > 0
    assert stats["fills"] == []
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert values["mirror_cache_bytes_total", "upstream"] == model.size
    assert values["mirror_store_bytes", "proven"] == model.size
    assert values["mirror_store_models",] == 1
    assert values["mirror_cache_requests_total", "manifest", "miss"] == 1
    assert values["mirror_cache_requests_total", "manifest", "hit"] == 1
    assert tags["models"][0]["digest"] == hashlib.sha256(model.manifest).hexdigest()
    assert "demo:latest" in page


async def test_counts_survive_a_restart(tmp_path: Path) -> None:
    """What was saved is what was saved since the beginning, not since the last boot."""
    await asyncio.to_thread(write_model, tmp_path / "registry", size=100_000)
    async with running_registry(tmp_path / "registry") as registry:
        async with running_mirror(_settings(tmp_path, registry.url)) as mirror:
            await pull(mirror.url, "library/demo:latest")
            before = json.loads((await _get(f"{mirror.url}/mirror/stats"))[2])
        async with running_mirror(_settings(tmp_path, registry.url)) as mirror:
            assert json.loads((await _get(f"{mirror.url}/mirror/stats"))[2]) == before


async def test_health_tells_a_mirror_without_upstream_from_one_without_store(tmp_path: Path) -> None:
    """A monitor must not take a mirror out of service because the internet is away."""
    async with running_mirror(_settings(tmp_path, "http://127.0.0.1:9")) as mirror:
        status, _, body = await _get(f"{mirror.url}/mirror/health")
        assert (status, json.loads(body)["status"]) == (200, "degraded")
        assert (await _get(f"{mirror.url}/readyz"))[0] == 200
        (tmp_path / "store" / "blobs").rename(tmp_path / "gone")
        status, _, body = await _get(f"{mirror.url}/mirror/health")
        assert (status, json.loads(body)["status"]) == (503, "unhealthy")
        assert (await _get(f"{mirror.url}/readyz"))[0] == 503
        assert (await _get(f"{mirror.url}/livez"))[0] == 200


async def test_features_can_be_switched_off(tmp_path: Path) -> None:
    """The first seed's enable_* do what they say."""
    off = _settings(
        tmp_path,
        "http://127.0.0.1:9",
        features__enable_metrics=False,
        features__enable_web_ui=False,
        features__enable_api_proxy=False,
    )
    async with running_mirror(off) as mirror:
        assert (await _get(f"{mirror.url}/metrics"))[0] == 404
        assert (await _get(f"{mirror.url}/api/tags"))[0] == 404
        assert (await _get(mirror.url, headers={"Accept": "text/html"}))[2] == "Ollama is running"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"name": "a/b/c/d/e"}', "application/json", 400),
        (b'{"name": 5}', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"name": "demo"}', "text/plain", 400),
        (b"", "application/json", 400),
        (b" " * (2 << 20), "application/json", 413),
    ],
)
async def test_a_bad_pull_request_is_a_problem(tmp_path: Path, body: bytes, content_type: str, status: int) -> None:
    """What cannot be understood is said in one sentence, and nothing is fetched."""
    async with (
        running_mirror(_settings(tmp_path, "http://127.0.0.1:9")) as mirror,
        aiohttp.ClientSession() as session,
        session.post(
            f"{mirror.url}/mirror/v1/pulls",
            data=io.BytesIO(body),
            headers={"Content-Type": content_type},
        ) as answer,
    ):
        assert answer.status == status
        if status == 400:
            assert answer.content_type == "application/problem+json"
            assert "accepted is" in (await answer.json(content_type=None))["detail"]


async def test_the_key_guards_what_changes_the_store(tmp_path: Path) -> None:
    """With a key set even this machine must show it; pages of other sites are refused whatever they show."""
    settings = _settings(tmp_path, "http://127.0.0.1:9", security__api_key="secret")
    async with running_mirror(settings) as mirror, aiohttp.ClientSession(mirror.url) as session:
        model = "/mirror/v1/models/demo"
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Basic secret"}, 401),
            ({"Authorization": "Bearer secret"}, 404),
            ({"Authorization": "Bearer secret", "Origin": "http://evil.example"}, 403),
            ({"Authorization": "Bearer secret", "Origin": "null"}, 403),
        ):
            async with session.delete(model, headers=headers) as answer:
                assert answer.status == status, headers
                assert (await answer.json(content_type=None))["status"] == status
        async with session.get("/mirror/v1/models") as answer:
            assert answer.status == 401, "the key closes the API, and looking goes with it"
        async with session.get("/mirror/v1/models", headers={"Authorization": "Bearer secret"}) as answer:
            assert await answer.json() == {"models": []}
