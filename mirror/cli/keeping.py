"""``mirror usage|gc|scrub|repair|pin|unpin``: keeping the store in order."""

import json
import sys
from typing import Any

import click

from mirror.cli.options import Where, dry_run_option, fail, on_a_mirror, run, yes_option
from mirror.cli.reach import Reached, Steps, reached
from mirror.cli.text import ago, columns, plain, progress_bars, size
from mirror.config import parse_rate
from mirror.errors import ServerError
from mirror.values import NamePattern


@click.command()
@on_a_mirror
def usage(where: Where) -> None:
    """Say how much the store holds, how much it may, and what is wrong with it.

    \b
    Examples:
      mirror usage
      mirror usage --json | jq .size
    """

    async def work() -> dict[str, Any]:
        async with reached(where.settings, where.server, "usage", create=False) as mirror:
            return await mirror.usage()

    view = run(work())
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    limit = f" of {size(view['max_size'])}" if view["max_size"] is not None else ", no limit"
    floor = f", {size(view['min_free'])} to stay free" if view["min_free"] else ""
    facts = {
        "store": view["directory"],
        "models": f"{view['models']}, {view['incomplete_models']} more not complete",
        "blobs": f"{view['blobs']}, {size(view['size'])}{limit}",
        "on the way": f"{size(view['partial'])} here, room for {size(view['promised'])} promised",
        "disk": f"{size(view['disk_free'])} free of {size(view['disk_size'])}{floor}",
        "pinned": ", ".join(view["pins"]) or "-",
        "last scrub": _scrub_text(view),
        "put aside": size(view["quarantine"]),
        "damaged": ", ".join(view["damaged_models"]) or "-",
    }
    width = max(map(len, facts))
    for key, value in facts.items():
        plain(f"{key.ljust(width)}  {value}")


@click.command()
@yes_option
@dry_run_option
@on_a_mirror
def gc(where: Where, yes: bool, dry_run: bool) -> None:
    """Remove what has to go: what nobody used for too long, what no model names, and, where the store or the disk is
    too full, the models used least recently. Pinned models and those in use stay.

    A running mirror does this by itself (cache.cleanup_interval). Asks first when run in a terminal.

    \b
    Examples:
      mirror gc --dry-run
      mirror gc --yes --json
    """
    if not yes and not dry_run and sys.stdin.isatty():
        last = run(_gc(where, dry_run=True))
        if not last["removed"]:
            return
        click.confirm("Remove all this?", abort=True)
    run(_gc(where, dry_run=dry_run))


async def _gc(where: Where, *, dry_run: bool) -> dict[str, Any]:
    async with (
        reached(where.settings, where.server, "gc", create=False) as mirror,
        mirror.gc(dry_run=dry_run) as steps,
    ):
        rows = [step async for step in told(steps, as_json=where.as_json)]
    last = rows.pop()
    if where.as_json:
        return last
    if rows:
        columns(
            ("KIND", "WHAT", "FREES", "WHY", "LAST USED"),
            [(one["kind"], one["what"], size(one["freed"]), one["why"], ago(one["used_at"])) for one in rows],
        )
    done = "would be freed" if dry_run else "freed"
    plain(f"{size(last['freed'])} {done}; the store holds {size(last['size_after'])}")
    for one in last["kept"]:
        plain(f"kept: {one['name']}, {one['why']}")
    if last["short"]:
        plain(last["short"])
    return last


@click.command()
@click.option("--rate", metavar="RATE", help="Most to read per second, such as 50MB/s; else as fast as one thread can.")
@click.option("--no-repair", is_flag=True, help="Do not fetch damaged blobs again.")
@on_a_mirror
def scrub(where: Where, rate: str | None, no_repair: bool) -> None:
    """Hash every blob again, put aside what is damaged, and fetch it again.

    A running mirror does this by itself (cache.scrub_interval, cache.scrub_rate). Exit code 1 when something is
    damaged and could not be repaired.

    \b
    Examples:
      mirror scrub
      mirror scrub --rate 50MB/s --no-repair
    """
    try:
        limit = parse_rate(rate) if rate is not None else None
    except ValueError as error:
        raise click.BadParameter(f"{rate}: {error}", param_hint="--rate") from error
    if limit == 0:
        raise click.BadParameter("must be above 0", param_hint="--rate")

    async def work() -> dict[str, Any]:
        repair = not no_repair and not where.settings.offline
        async with (
            reached(where.settings, where.server, "scrub", create=False) as mirror,
            mirror.scrub(limit, repair=repair) as steps,
        ):
            return await _mending(steps, where, "hashing")

    last = run(work())
    if not where.as_json:
        plain(f"{last['blobs']} blobs hashed, {size(last['bytes'])}: {last['found_damaged']} damaged")
    if last["found_damaged"] and last.get("damaged_models", 1):
        fail("damaged blobs are not repaired; see mirror list and mirror repair", 1)


@click.command()
@on_a_mirror
def repair(where: Where) -> None:
    """Fetch again what damaged models lack. A running mirror does this by itself.

    Exit code 1 when a model could not be repaired.

    \b
    Example:
      mirror repair
    """

    async def work() -> dict[str, Any]:
        async with reached(where.settings, where.server, "repair", create=False) as mirror:
            return await _repair(mirror, where)

    last = run(work())
    if not where.as_json:
        plain(f"{last['repaired_models']} models repaired")
    if last["damaged_models"]:
        fail(f"{last['damaged_models']} models are still damaged", 1)


async def _repair(mirror: Reached, where: Where) -> dict[str, Any]:
    async with mirror.repair() as steps:
        return await _mending(steps, where, "fetching")


async def _mending(steps: Steps, where: Where, doing: str) -> dict[str, Any]:
    """Show the steps of a scrub or repair; return the last."""
    last: dict[str, Any] = {}
    with progress_bars() as bars:
        bar = bars.add_task(doing, total=None)
        async for step in told(steps, as_json=where.as_json):
            last = step
            if "total" in step:
                bars.update(bar, completed=step.get("completed", step.get("done")), total=step["total"])
            elif where.as_json:
                continue
            elif "damaged" in step:
                plain(f"{step['damaged']} is damaged; models: {', '.join(step['models']) or 'none'}")
            elif "repaired" in step:
                plain(f"{step['repaired']} is whole again")
            elif "not_repaired" in step:
                plain(f"{step['not_repaired']} cannot be repaired now: {step['problem']}")
    return last


@click.command()
@click.argument("patterns", nargs=-1, metavar="[NAME|PATTERN]...")
@on_a_mirror
def pin(where: Where, patterns: tuple[str, ...]) -> None:
    """Keep models whatever happens, also those that come later. Without a name: list the pins.

    \b
    Examples:
      mirror pin llama3.2
      mirror pin 'qwen3:*' 'hf.co/*/*:*'
      mirror pin
    """
    _pins(where, patterns, wanted=True)


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="NAME|PATTERN...")
@on_a_mirror
def unpin(where: Where, patterns: tuple[str, ...]) -> None:
    """Take pins back, in the words in which they were set.

    \b
    Example:
      mirror unpin 'qwen3:*'
    """
    _pins(where, patterns, wanted=False)


def _pins(where: Where, patterns: tuple[str, ...], *, wanted: bool) -> None:
    for pattern in patterns:
        NamePattern.parse(pattern, host=where.settings.upstream.host)

    async def work() -> dict[str, Any]:
        async with reached(where.settings, where.server, "pin", create=False) as mirror:
            for pattern in patterns:
                await (mirror.pin(pattern) if wanted else mirror.unpin(pattern))
            return await mirror.pins()

    view = run(work())
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    rows = [(one["pattern"], one["from"], ", ".join(one["models"]) or "-") for one in view["pins"]]
    columns(("PINNED", "BY", "MODELS"), rows)


async def told(steps: Steps, *, as_json: bool) -> Steps:
    """Yield the steps, printed as they come if asked; a failure is raised."""
    async for step in steps:
        if as_json:
            plain(json.dumps(step))
        if "error" in step:
            raise ServerError(step["error"], 0)
        yield step


def _scrub_text(view: dict[str, Any]) -> str:
    if view["scrub_ended_at"] is not None:
        return ago(view["scrub_ended_at"])
    return f"began {ago(view['scrub_began_at'])}" if view["scrub_began_at"] else "-"
