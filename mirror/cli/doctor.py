"""``mirror doctor``."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mirror.cli.options import config_option, ending_well, json_option, loaded, store_option
from mirror.cli.text import plain
from mirror.config import Settings

if TYPE_CHECKING:
    from mirror.app.doctor import Finding


@click.command()
@config_option
@store_option
@json_option
@ending_well
def doctor(config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Look for what may be wrong with the mirror on this machine, and say what to do about it. Changes nothing.

    \b
    Examples:
      mirror doctor
      sudo mirror doctor --config /etc/mirror/config.yaml
      mirror doctor --json | jq '.[] | select(.verdict != "ok")'

    Looks at the store and its state, the room on the disk, what a crash left, settings without effect, the CA, the
    upstreams and what their names resolve to, the clock and, where the folder is an Ollama's too, that Ollama's
    environment, which only root and the Ollama's own user can read. The mirror that runs here is asked for a few bytes
    of one blob. Whether clients reach it is what mirror setup tries, on their machines. Exit code 1 when there is a
    problem; warnings alone are none.
    """
    settings = loaded(config_file, {"cache.directory": store and str(store)}).settings
    findings = asyncio.run(_examined(settings, as_json=as_json))
    if as_json:
        plain(json.dumps([asdict(one) for one in findings], indent=2))
    if any(one.verdict == "problem" for one in findings):
        sys.exit(1)


async def _examined(settings: Settings, *, as_json: bool) -> "list[Finding]":
    """Find all, printing each finding at once unless it is to be JSON."""
    from mirror.app.doctor import examine

    findings = []
    async for one in examine(settings):
        findings.append(one)
        if not as_json:
            advice = f" -> {one.advice}" if one.advice else ""
            plain(f"{one.verdict.value:<8} {one.matter:<10} {one.said}{advice}")
    return findings
