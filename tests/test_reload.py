"""SIGHUP: settings read again, applied where they can change, and left alone where they are wrong."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirror.app.reloading import LIVE, Reloading
from mirror.config import Settings, load
from mirror.demo.model import MODEL_TYPE
from mirror.values import ModelName
from tests.behind import fronted
from tests.process import serving
from tests.support import eventually, noise, settings


def _with(base: Settings, **changes: Any) -> Settings:
    """The settings of a running mirror with some changed, ``section__key`` each."""
    new = base
    for name, value in changes.items():
        section, _, key = name.partition("__")
        new = new.model_copy(update={section: getattr(new, section).model_copy(update={key: value})})
    return new


async def test_limits_rules_windows_rates_and_weights_change_while_it_serves(tmp_path: Path) -> None:
    """Each is seen where it works."""
    other = settings(
        tmp_path,
        "http://127.0.0.1:9",
        cache__max_size=1000,
        security__rules=[{"deny": ["secret"]}],
        pulls__windows=["00:00-24:00"],
        pulls__rate=5000,
        dispatch__weights={"ann": 2},
        dispatch__timeout=7,
    )
    async with fronted(tmp_path, pulls__windows=()) as at:
        parts = at.mirror.parts
        new = parts.settings.model_copy(
            update={
                "cache": parts.settings.cache.model_copy(update={"max_size": other.cache.max_size}),
                "security": parts.settings.security.model_copy(update={"rules": other.security.rules}),
                "pulls": parts.settings.pulls.model_copy(
                    update={"windows": other.pulls.windows, "rate": other.pulls.rate}
                ),
                "dispatch": other.dispatch,
            }
        )
        found = [new, parts.settings]
        reloading = Reloading(parts, at.mirror.gate, lambda: found[0])
        assert parts.worker.schedule.now(parts.worker.now()) is None
        reloading.reload()
        assert parts.keeper.limits().size == 1000
        assert parts.admission.hides(ModelName.parse("secret"))
        assert parts.worker.schedule.now(parts.worker.now()) is not None
        assert parts.pace.ahead == 5000
        assert {one.user: one.weight for one in parts.turns.users()} in ({}, {"ann": 2.0})
        del found[0]
        reloading.reload()
        assert parts.keeper.limits().size is None
        assert not parts.admission.hides(ModelName.parse("secret"))
        assert parts.pace.ahead is None


async def test_rates_change_with_their_windows_and_so_does_how_often_a_client_may_ask(tmp_path: Path) -> None:
    """Also where there was none before, so that nothing had an edge to wait for."""
    async with fronted(tmp_path) as at:
        parts = at.mirror.parts
        assert parts.pace.upstream is None
        rates = Settings(upstream={"rate": ["7MB/s", "9MB/s 00:00-24:00"]}).upstream.rate
        said = [
            _with(parts.settings, upstream__rate=rates, security__rate_limit_requests=2),
            _with(parts.settings, upstream__rate=rates, security__rate_limit_requests=2, security__rate_limit_window=1),
        ]
        reloading = Reloading(parts, at.mirror.gate, lambda: said[0])
        reloading.reload()
        assert parts.pace.upstream == 9_000_000
        assert [(await at.client.get("/api/tags")).status for _ in range(3)] == [200, 200, 429]
        del said[0]
        reloading.reload()
        assert (await at.client.get("/api/tags")).status == 200


async def test_a_queue_that_waits_for_a_window_begins_when_there_is_one(tmp_path: Path) -> None:
    """Nobody has to touch it."""
    async with fronted(tmp_path, pulls__windows=()) as at:
        parts = at.mirror.parts
        at.registry.add_model("library/m2:latest", {MODEL_TYPE: noise(1000)})
        await parts.queue.ask(ModelName.parse("m2"), "ann")
        Reloading(parts, at.mirror.gate, lambda: _with(parts.settings, pulls__windows=("00:00-24:00",))).reload()

        async def is_here() -> bool:
            return parts.store.complete.find(ModelName.parse("m2")) is not None

        await eventually(is_here)


async def test_what_is_wrong_changes_nothing_and_what_cannot_change_is_named(tmp_path: Path) -> None:
    """By a real signal to a real process, and in its log, which is opened anew for logrotate."""
    config, log_file = tmp_path / "config.yaml", tmp_path / "mirror.log"

    def write(**sections: Any) -> None:
        config.write_text(yaml.safe_dump({"logging": {"file": str(log_file), "format": "json"}, **sections}))

    def said(event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log_file.read_text().splitlines()] if log_file.exists() else []
        return [line for line in lines if line["event"] == event]

    write()
    async with serving(tmp_path / "store", "http://127.0.0.1:9", "--config", str(config)) as (_, process):

        async def has_said(event: str) -> bool:
            return bool(said(event))

        write(cache={"max_size": "a lot"})
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: has_said("settings not reloaded"))
        assert "cache.max_size" in said("settings not reloaded")[0]["problem"]
        log_file.rename(tmp_path / "mirror.log.1")
        write(cache={"max_size": "10GB", "manifest_ttl": "1h"})
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: has_said("settings reloaded"))
        (line,) = said("settings reloaded")
        assert (line["applied"], line["need_a_restart"]) == (["cache.max_size"], ["cache.manifest_ttl"])
        assert process.returncode is None


@pytest.mark.parametrize("key", sorted(LIVE))
def test_every_key_that_can_change_is_one(key: str) -> None:
    """A misspelt one would never be applied."""
    from mirror.config.sections import FIELDS, value_of

    assert key in FIELDS
    value_of(load(None, {}, {}).settings, key)
