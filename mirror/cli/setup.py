"""``mirror setup``."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import Where, fail, on_a_mirror
from mirror.cli.reach import checked, shown
from mirror.cli.text import plain
from mirror.store import holder

if TYPE_CHECKING:
    from mirror.client.ways import Check, Key

_WAYS = ("name", "plain-proxy", "proxy", "dns", "folder")


@click.command()
@click.option("--way", type=click.Choice(_WAYS), help="This way only.")
@click.option("--check/--no-check", default=True, help="Try from this machine which ways work.", show_default=True)
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file of a CA to trust for these tries, besides what this machine trusts.",
)
@on_a_mirror
def setup(where: Where, way: str | None, check: bool, ca: Path | None) -> None:
    """Say how an Ollama comes to use a mirror, line by line, and try which ways work from this machine.

    \b
    Examples:
      mirror setup
      mirror setup --server http://mirror:11434
      mirror setup --server http://mirror:11434 --way proxy --ca ollama-mirror-ca.pem
      mirror setup --json | jq '.checks[] | select(.outcome == "ok")'

    Trust is told as Ollama tells it: the system's CAs, or those of SSL_CERT_FILE and SSL_CERT_DIR in this command's
    environment. Nothing is changed. Exit code 1 when no way works, or blobs do not come as Ollama wants them.
    """
    said, text, checks = asyncio.run(_asked(where, way, check=check, ca=ca))
    if where.as_json:
        plain(json.dumps({**said, "checks": [asdict(one) for one in checks]} if check else said, indent=2))
    else:
        plain("".join(one if one.isprintable() or one == "\n" else "?" for one in text).rstrip("\n"))
        _show(checks)
    if check and not _works(checks):
        sys.exit(1)


async def _asked(
    where: Where, way: str | None, *, check: bool, ca: Path | None
) -> "tuple[dict[str, Any], str, list[Check]]":
    from mirror.client.roots import roots
    from mirror.client.ways import Ground, Ways

    url, key = _reached(where)
    ways = Ways(url, Ground(await asyncio.to_thread(roots, os.environ, ca)), key)
    said = await ways.said(way)
    return said, "" if where.as_json else await ways.text(way), await ways.checks(said, way) if check else []


def _reached(where: Where) -> "tuple[str, Key]":
    """The mirror that is meant, the one named or else the one that has this machine's store, and what to show it."""
    if where.server:
        url = checked(where.server)
        return url, shown(where.settings, url)
    running = holder(where.settings.cache.state_directory.absolute() / "lock")
    if running is None or running.url is None:
        fail("no mirror serves on this machine; start it (mirror serve), or name one: --server http://MIRROR:11434", 1)
    return running.url, shown(where.settings, None)


def _show(checks: "Sequence[Check]") -> None:
    if checks:
        plain("\nFrom this machine, now:")
    for one in checks:
        advice = f" -> {one.advice}" if one.advice else ""
        plain(f"{one.outcome.value:<9} {one.way:<12} {one.said}{advice}")


def _works(checks: "Sequence[Check]") -> bool:
    outcomes = {one.way: one.outcome.value for one in checks}
    return outcomes.pop("blobs", None) != "failed" and "ok" in outcomes.values()
