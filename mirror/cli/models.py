"""``mirror prefetch|list|show|rm|verify``."""

import asyncio
import json
import sys
from typing import Any

import click

from mirror.cli.options import Where, dry_run_option, fail, on_a_mirror, run, yes_option
from mirror.cli.reach import Reached, reached
from mirror.cli.text import ago, columns, ending_lines, followed, plain, progress_bars, size
from mirror.errors import MirrorError
from mirror.values import ModelName


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@on_a_mirror
def prefetch(where: Where, names: tuple[str, ...]) -> None:
    """Fetch models into the store before anybody asks for them.

    \b
    Examples:
      mirror prefetch llama3.2
      mirror prefetch llama3.2 qwen3:8b --server http://mirror:11434
      mirror prefetch --store /srv/models llama3.2

    A running mirror does it where there is one. Interrupted, it goes on from the same byte next time. With --json
    each step is an object on a line; the last one of a model has the status success or error.
    """
    for name in names:
        ModelName.parse(name, host=where.settings.upstream.host)

    async def work() -> list[str]:
        async with reached(where.settings, where.server, "prefetch", create=True) as mirror:
            return await prefetch_all(
                mirror, names, where.settings.upstream.max_concurrent_downloads, as_json=where.as_json
            )

    failed = run(work())
    if failed:
        fail("; ".join(failed), 1)


async def prefetch_all(mirror: Reached, names: tuple[str, ...], at_once: int, *, as_json: bool) -> list[str]:
    """Fetch all, some at once; return what went wrong, a sentence per model."""
    places = asyncio.Semaphore(at_once)
    failed: list[str] = []
    with ending_lines() as tell, progress_bars() as bars:

        async def one(name: str) -> None:
            async with places:
                try:
                    async with mirror.pull(name) as steps:
                        last = await followed(steps, name, bars, as_json=as_json)
                except MirrorError as error:
                    last = {"error": str(error)}
            if "error" in last:
                failed.append(f"{name}: {last['error']}")
            elif not as_json:
                tell(f"{last['name']}: {size(last['total'])} in the store, {size(last['fetched'])} fetched now")

        async with asyncio.TaskGroup() as group:
            for name in dict.fromkeys(names):
                group.create_task(one(name))
    return failed


@click.command("list")
@on_a_mirror
def list_models(where: Where) -> None:
    """List the models in the store, the newest first.

    \b
    Examples:
      mirror list
      mirror list --json | jq '.[].name'
    """

    async def work() -> list[dict[str, Any]]:
        async with reached(where.settings, where.server, "list", create=False) as mirror:
            return await mirror.models()

    models = run(work())
    if where.as_json:
        plain(json.dumps(models, indent=2))
        return
    columns(
        ("NAME", "ID", "SIZE", "STORED", "LAST USED", "USES", ""),
        [
            (
                one["name"],
                one["digest"].removeprefix("sha256:")[:12],
                size(one["size"]),
                _state(one),
                ago(one["used_at"]),
                str(one["uses"]),
                f"in {one['from']}" if one["from"] else ", ".join(word for word in ("pinned", "held") if one[word]),
            )
            for one in models
        ],
    )


def _state(view: dict[str, Any]) -> str:
    if view["complete"]:
        return ago(view["stored_at"])
    return "damaged" if view["damaged"] else f"{100 * view['stored'] // max(1, view['size'])} % so far"


@click.command()
@click.argument("name")
@on_a_mirror
def show(where: Where, name: str) -> None:
    """Show one model: what it is, when it was used, and its blobs.

    \b
    Example:
      mirror show llama3.2
    """

    async def work() -> dict[str, Any]:
        async with reached(where.settings, where.server, "show", create=False) as mirror:
            return await mirror.model(name)

    view = run(work())
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    facts = {
        "name": view["name"],
        "digest": view["digest"],
        "size": f"{size(view['size'])} ({view['size']} bytes)",
        "complete": "yes" if view["complete"] else f"no, {size(view['stored'])} so far",
        "stored": ago(view["stored_at"]),
        "confirmed upstream": ago(view["checked_at"]),
        **({"held": "yes, until mirror update names it"} if view["held"] else {}),
        "last used": f"{ago(view['used_at'])}, {view['uses']} times in all",
        **{key.replace("_", " "): str(value) for key, value in view["details"].items() if value},
    }
    width = max(map(len, facts))
    for key, value in facts.items():
        plain(f"{key.ljust(width)}  {value}")
    plain("")
    columns(
        ("BLOB", "SIZE", "TYPE", ""),
        [
            (one["digest"][7:19], size(one["size"]), one["media_type"], "" if one["stored"] else "missing")
            for one in view["layers"]
        ],
    )


@click.command("rm")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Every model that is not pinned or in use.")
@yes_option
@dry_run_option
@on_a_mirror
def remove(where: Where, name: str | None, everything: bool, yes: bool, dry_run: bool) -> None:
    """Take a model out of the store, and every blob that no other model names.

    Whoever reads it now goes on reading. Asks first when run in a terminal.

    \b
    Examples:
      mirror rm llama3.2 --dry-run
      mirror rm llama3.2 --yes
      mirror rm --all
    """
    if (name is None) is not everything:
        raise click.UsageError("Give a model's name, or --all.")
    if name is not None:
        ModelName.parse(name, host=where.settings.upstream.host)
    if not yes and not dry_run and sys.stdin.isatty():
        what = name or "every model that is not pinned or in use"
        click.confirm(f"Remove {what} from the store?", abort=True)

    async def work() -> dict[str, Any]:
        async with reached(where.settings, where.server, "rm", create=False) as mirror:
            if name is None:
                return await mirror.clear(dry_run=dry_run)
            return await mirror.remove(name, dry_run=dry_run)

    gone = run(work())
    if "error" in gone:
        fail(gone["error"], 1)
    if where.as_json:
        plain(json.dumps(gone))
        return
    what = gone.get("name") or f"{gone['removed']} things"
    plain(f"{what} would go, {size(gone['freed'])}" if dry_run else f"{what} removed, {size(gone['freed'])} freed")


@click.command()
@on_a_mirror
def verify(where: Where) -> None:
    """Hash every blob, follow every manifest, and say what is not as promised. Changes nothing.

    Exit code 1 when there is a problem. With --json each problem is an object on a line, the last line their number.

    \b
    Example:
      mirror verify --store /srv/models
    """

    async def work() -> int:
        async with reached(where.settings, where.server, "verify", create=False) as mirror:
            return await _verify(mirror, as_json=where.as_json)

    problems = run(work())
    if problems:
        fail(f"{problems} problem{'s' if problems > 1 else ''} found", 1)


async def _verify(mirror: Reached, *, as_json: bool) -> int:
    problems = 0
    with progress_bars() as bars:
        bar = bars.add_task("hashing", total=None)
        async with mirror.verify() as steps:
            async for step in steps:
                if "total" in step:
                    bars.update(bar, completed=step["done"], total=step["total"])
                    continue
                problems = step.get("problems", problems)
                if as_json:
                    plain(json.dumps(step))
                elif "problem" in step:
                    plain(f"{step['path']} {step['problem']}")
    if not problems and not as_json:
        plain("every blob and every manifest is as promised")
    return problems
