"""``mirror outdated`` and ``mirror update``: what is newer upstream."""

import json
from collections.abc import Sequence
from typing import Any

import click

from mirror.cli.models import prefetch_all
from mirror.cli.options import Where, fail, on_a_mirror, run
from mirror.cli.reach import Reached, reached
from mirror.cli.text import columns, plain, size

View = dict[str, Any]


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@on_a_mirror
def outdated(where: Where, names: Sequence[str]) -> None:
    """List the models whose tags mean something newer upstream, and how much there is to fetch. Changes nothing.

    \b
    Examples:
      mirror outdated
      mirror outdated llama3.2 --json

    One question to the upstream for each model. Tags that mirror rollback has put back are listed as held. With --json
    every model is an object, those that are current too.
    """

    async def work() -> list[View]:
        async with reached(where.settings, where.server, "outdated", create=False) as mirror:
            return await _compared(mirror, names)

    found = run(work())
    if where.as_json:
        plain(json.dumps(found, indent=2))
        return
    rows = [
        [one["name"], one["state"], _to_fetch(one), _note(one)]
        for one in found
        if one["state"] != "current" or one["held"]
    ]
    if rows:
        columns(["NAME", "STATE", "TO FETCH", "NOTE"], rows)
    current = sum(one["state"] == "current" for one in found)
    plain(f"{current} of {len(found)} are what is upstream")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--tonight", is_flag=True, help="Queue them for the next window (mirror pulls list).")
@on_a_mirror
def update(where: Where, names: Sequence[str], tonight: bool) -> None:
    """Fetch what is newer upstream, of these models or of all, now or tonight. Others are left as they are.

    A tag that mirror rollback holds is left where it is, unless it is named here: that ends the hold.

    \b
    Examples:
      mirror update
      mirror update llama3.2
      mirror update --tonight
    """

    async def work() -> list[str]:
        async with reached(where.settings, where.server, "update", create=False) as mirror:
            found = await _compared(mirror, names)
            if names:
                await _release(mirror, found, as_json=where.as_json)
            states = ("outdated", "held") if names else ("outdated",)
            wanted = [one["name"] for one in found if one["state"] in states]
            if not wanted and not where.as_json:
                held = sum(one["state"] == "held" for one in found)
                plain(f"{held} held, nothing else is newer upstream" if held else "everything is what is upstream")
            if not tonight:
                at_once = where.settings.upstream.max_concurrent_downloads
                return await prefetch_all(mirror, tuple(wanted), at_once, as_json=where.as_json)
            for name in wanted:
                view = await mirror.queue_add(name, priority=0, at_once=False)
                plain(json.dumps(view) if where.as_json else f"{name} is queued")
            return []

    failed = run(work())
    if failed:
        fail("; ".join(failed), 1)


async def _compared(mirror: Reached, names: Sequence[str]) -> list[View]:
    async with mirror.outdated(names) as steps:
        found = [step async for step in steps]
    if found and found[-1]["status"] == "error":
        fail(found[-1]["error"], 1)
    return sorted((one for one in found if one["status"] == "compared"), key=lambda one: str(one["name"]))


async def _release(mirror: Reached, found: Sequence[View], *, as_json: bool) -> None:
    """End the holds on those that the upstream could be asked about."""
    for one in found:
        if one["held"] and one["state"] in ("held", "current"):
            view = await mirror.release(one["name"])
            plain(json.dumps(view) if as_json else f"{one['name']} is held no more")


def _to_fetch(one: View) -> str:
    return f"{size(one['lacking'])} of {size(one['size'])}" if one["state"] in ("outdated", "held") else "-"


def _note(one: View) -> str:
    held = f"held at {one['here'].removeprefix('sha256:')[:12]}" if one["held"] else ""
    return "; ".join(said for said in (held, one["problem"]) if said)
