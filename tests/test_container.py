"""The image and the composition, by the rules that images are judged by; no container runs here."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from mirror.cli import main
from mirror.config.aliases import VARIABLES
from tests.test_metrics import PROMTOOL, promtool

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def _said(word: str) -> list[str]:
    """What is said by an instruction in the last stage."""
    last = re.split(r"(?m)^FROM ", DOCKERFILE)[-1].replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in last.splitlines() if line.startswith(f"{word} ")]


def test_the_image_is_small_and_runs_as_nobody_in_particular() -> None:
    """Two stages, a user by its number, one volume, and programs in exec form, so that signals reach them."""
    assert len(re.findall(r"(?m)^FROM \S+-slim\b", DOCKERFILE)) == 2
    assert ":latest" not in DOCKERFILE
    assert [int(one) for one in _said("USER")] == [10001]
    assert _said("VOLUME") == ["/var/lib/mirror"]
    assert [json.loads(one) for one in (*_said("ENTRYPOINT"), *_said("CMD"))] == [["mirror"], ["serve"]]
    (health,) = _said("HEALTHCHECK")
    assert "/readyz" in json.loads(health[health.index("[") :])[-1]
    assert "--no-cache-dir" in DOCKERFILE
    assert "--constraint requirements.lock" in DOCKERFILE


def test_everything_that_is_copied_is_there() -> None:
    """What is missing would be found out by the first who builds it."""
    for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", DOCKERFILE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    for name in re.findall(r"(?m)^    (\w+)=", DOCKERFILE):
        assert name in {*VARIABLES, "PYTHONDONTWRITEBYTECODE"}, name


def test_the_composition_says_what_programs_understand() -> None:
    """Variables of ours are settings or the node's; who is ours can write nothing but its volume."""
    ours = {name: one for name, one in COMPOSE["services"].items() if one["image"] == "mirror"}
    assert set(ours) == {"mirror", "node"}
    for one in ours.values():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
    assert set(ours["mirror"]["environment"]) <= set(VARIABLES)
    node = {variable for option in main.commands["node"].params for variable in _variables(option)}
    assert set(ours["node"]["environment"]) <= node
    used = {volume.partition(":")[0] for one in COMPOSE["services"].values() for volume in one.get("volumes", ())}
    assert {name for name in used if not name.startswith(".")} == set(COMPOSE["volumes"])


@promtool
def test_promtool_reads_the_configuration() -> None:
    """With its rules."""
    command = [str(PROMTOOL), "check", "config", str(ROOT / "contrib" / "prometheus" / "prometheus.yml")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr


def _variables(option: Any) -> list[str]:
    found = option.envvar
    return [found] if isinstance(found, str) else list(found or ())
