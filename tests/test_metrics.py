"""Metrics, and what is shipped to read them: checked by promtool, and against each other."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.values import ModelName
from tests.behind import Fronted, asked, fronted
from tests.support import noise
from tests.test_turns import GENERATE

ROOT = Path(__file__).parents[1]
RULES = ROOT / "contrib" / "prometheus" / "mirror.rules.yml"
DASHBOARD = ROOT / "contrib" / "grafana" / "mirror.json"
PROMTOOL = shutil.which("promtool")
promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's prometheus)")
_NAME = re.compile(r"\bmirror_[a-z_]+")
_PROMISED = {
    "mirror_cache_requests_total",
    "mirror_cache_bytes_total",
    "mirror_store_bytes",
    "mirror_store_limit_bytes",
    "mirror_store_blobs",
    "mirror_evictions_total",
    "mirror_evicted_bytes_total",
    "mirror_fill_inflight",
    "mirror_fill_readers",
    "mirror_fill_duration_seconds",
    "mirror_fill_resumed_total",
    "mirror_digest_mismatch_total",
    "mirror_upstream_request_duration_seconds",
    "mirror_upstream_last_success_timestamp_seconds",
    "mirror_pull_jobs",
    "mirror_bandwidth_limit_bytes",
    "mirror_queue_depth",
    "mirror_queue_wait_seconds",
    "mirror_generate_ttft_seconds",
    "mirror_generate_tokens_total",
    "mirror_node_up",
    "mirror_node_heartbeat_age_seconds",
    "mirror_failovers_total",
    "mirror_jobs",
    "mirror_scrub_errors_total",
    "mirror_tasks",
    "mirror_build_info",
}


async def _scraped(at: Fronted) -> str:
    return (await at.client.get("/metrics")).body.decode()


async def _used(at: Fronted) -> None:
    """Have something of everything happen."""
    at.registry.add_model("library/m2:latest", {MODEL_TYPE: noise(1000)})
    await at.mirror.parts.puller.pull(ModelName.parse("m2"), lambda _: None)
    await asked(at.client, "/api/generate", GENERATE)
    await asked(at.client, "/nodes/heartbeat", {"node_id": "n", "port": 9, "ipv4": "127.0.0.1", "models": []})


def _families(text: str) -> set[str]:
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def _run(*command: str, text: str = "") -> str:
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


@promtool
async def test_promtool_finds_no_fault_with_what_is_scraped(tmp_path: Path) -> None:
    """Names, units, help, types."""
    async with fronted(tmp_path, hub__enabled=True, cache__max_size=10**9, upstream__rate=10**9) as at:
        await _used(at)
        assert _run(str(PROMTOOL), "check", "metrics", text=await _scraped(at)) == ""


async def test_every_name_that_was_promised_is_there(tmp_path: Path) -> None:
    """From the first scrape on, so that nothing is missing from a dashboard."""
    async with fronted(tmp_path, hub__enabled=True, cache__max_size=10**9, upstream__rate=10**9) as at:
        assert _PROMISED - _families(await _scraped(at)) == set()


@promtool
def test_promtool_reads_the_rules() -> None:
    """All of them."""
    assert "9 rules found" in _run(str(PROMTOOL), "check", "rules", str(RULES))


async def test_what_is_shipped_asks_for_nothing_that_there_is_not(tmp_path: Path) -> None:
    """A panel or an alert on a name that has gone would stay empty for ever."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked_for = set(_NAME.findall(RULES.read_text()))
    for one in panels:
        for target in one["targets"]:
            asked_for |= set(_NAME.findall(target["expr"]))
    async with fronted(tmp_path, hub__enabled=True, cache__max_size=10**9, upstream__rate=10**9) as at:
        families = _families(await _scraped(at))
    known = families | {f"{name}{end}" for name in families for end in ("_bucket", "_count", "_sum")}
    assert len(asked_for) > 20
    assert asked_for - known == set()
    assert len({one["id"] for one in panels}) == len(panels)


async def test_models_are_labels_up_to_a_bound(tmp_path: Path) -> None:
    """Whatever names a client thinks of, and users are none."""
    async with fronted(tmp_path) as at:
        at.ollama.folder.add("n1")
        for name in ("m", "m:latest", "n1"):
            assert (await asked(at.client, "/api/generate", {**GENERATE, "model": name}, X_User_ID="ann"))[0] == 200
        for number in range(5):
            await asked(at.client, "/api/generate", {**GENERATE, "model": f"none{number}"})
        text = await _scraped(at)
    made = [line for line in text.splitlines() if line.startswith('mirror_generate_tokens_total{kind="made"')]
    names = {re.search(r'model="([^"]+)"', line)[1] for line in made}  # type: ignore[index]
    assert names <= {"registry.ollama.ai/library/m:latest", "registry.ollama.ai/library/n1:latest", "other"}
    assert "ann" not in text
    assert 'mirror_generate_ttft_seconds_count{model="registry.ollama.ai/library/m:latest"} 2.0' in text
