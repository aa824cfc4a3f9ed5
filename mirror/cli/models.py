"""``mirror prefetch|list|show|rm|verify``."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from mirror.cli.options import config_option, ending_well, fail, json_option, loaded, run, server_option, store_option
from mirror.cli.reach import Reached, reached
from mirror.cli.text import ago, columns, ending_lines, plain, progress_bars, size
from mirror.config import Settings, server_url
from mirror.errors import MirrorError
from mirror.values import ModelName

Command = Callable[..., None]


def _where(command: Command) -> Command:
    """Give a command the options that say which mirror it works on."""
    for option in (json_option, server_option, store_option, config_option):
        command = option(command)
    return command


def _settled(config_file: Path | None, store: Path | None, server: str | None) -> tuple[Settings, str | None]:
    """The settings, and the server to ask if one is named; --store says that this machine's store is meant."""
    settings = loaded(config_file, {"cache.directory": store and str(store)}).settings
    return settings, server or (None if store else server_url(os.environ))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_where
@ending_well
def prefetch(
    names: tuple[str, ...],
    config_file: Path | None,
    store: Path | None,
    server: str | None,
    as_json: bool,
) -> None:
    """Fetch models into the store before anybody asks for them.

    \b
    Examples:
      mirror prefetch llama3.2
      mirror prefetch llama3.2 qwen3:8b --server http://mirror:11434
      mirror prefetch --store /srv/models llama3.2

    A running mirror does it where there is one. Interrupted, it goes on from the same byte next time. With --json
    each step is an object on a line; the last one of a model has the status success or error.
    """
    settings, server = _settled(config_file, store, server)
    for name in names:
        ModelName.parse(name, host=settings.upstream.host)

    async def work() -> list[str]:
        async with reached(settings, server, "prefetch", create=True) as mirror:
            return await _prefetch(mirror, names, settings.upstream.max_concurrent_downloads, as_json=as_json)

    failed = run(work())
    if failed:
        fail("; ".join(failed), 1)


async def _prefetch(mirror: Reached, names: tuple[str, ...], at_once: int, *, as_json: bool) -> list[str]:
    """Fetch all, some at once; return what went wrong, a sentence per model."""
    places = asyncio.Semaphore(at_once)
    failed: list[str] = []
    with ending_lines() as tell, progress_bars() as bars:

        async def one(name: str) -> None:
            async with places:
                try:
                    last = await _prefetch_one(mirror, name, bars, as_json=as_json)
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


async def _prefetch_one(mirror: Reached, name: str, bars: Progress, *, as_json: bool) -> dict[str, Any]:
    bar = bars.add_task(name, total=None)
    last: dict[str, Any] = {"error": "the mirror ended without an answer"}
    async with mirror.pull(name) as steps:
        async for step in steps:
            last = step
            if as_json:
                plain(json.dumps(step))
            elif "total" in step:
                bars.update(bar, completed=step["completed"], total=step["total"])
    return last


@click.command("list")
@_where
@ending_well
def list_models(config_file: Path | None, store: Path | None, server: str | None, as_json: bool) -> None:
    """List the models in the store, the newest first.

    \b
    Examples:
      mirror list
      mirror list --json | jq '.[].name'
    """
    settings, server = _settled(config_file, store, server)

    async def work() -> list[dict[str, Any]]:
        async with reached(settings, server, "list", create=False) as mirror:
            return await mirror.models()

    models = run(work())
    if as_json:
        plain(json.dumps(models, indent=2))
        return
    columns(
        ("NAME", "ID", "SIZE", "STORED", "LAST USED", "USES"),
        [
            (
                one["name"],
                one["digest"].removeprefix("sha256:")[:12],
                size(one["size"]),
                ago(one["stored_at"]) if one["complete"] else f"{100 * one['stored'] // max(1, one['size'])} % so far",
                ago(one["used_at"]),
                str(one["uses"]),
            )
            for one in models
        ],
    )


@click.command()
@click.argument("name")
@_where
@ending_well
def show(name: str, config_file: Path | None, store: Path | None, server: str | None, as_json: bool) -> None:
    """Show one model: what it is, when it was used, and its blobs.

    \b
    Example:
      mirror show llama3.2
    """
    settings, server = _settled(config_file, store, server)

    async def work() -> dict[str, Any]:
        async with reached(settings, server, "show", create=False) as mirror:
            return await mirror.model(name)

    view = run(work())
    if as_json:
        plain(json.dumps(view, indent=2))
        return
    facts = {
        "name": view["name"],
        "digest": view["digest"],
        "size": f"{size(view['size'])} ({view['size']} bytes)",
        "complete": "yes" if view["complete"] else f"no, {size(view['stored'])} so far",
        "stored": ago(view["stored_at"]),
        "confirmed upstream": ago(view["checked_at"]),
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
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_where
@ending_well
def remove(
    name: str, yes: bool, config_file: Path | None, store: Path | None, server: str | None, as_json: bool
) -> None:
    """Take a model out of the store, and every blob that no other model names.

    Whoever reads it now goes on reading. Asks first when run in a terminal.

    \b
    Example:
      mirror rm llama3.2 --yes
    """
    settings, server = _settled(config_file, store, server)
    ModelName.parse(name, host=settings.upstream.host)
    if not yes and sys.stdin.isatty():
        click.confirm(f"Remove {name} from the store?", abort=True)

    async def work() -> dict[str, Any]:
        async with reached(settings, server, "rm", create=False) as mirror:
            return await mirror.remove(name)

    gone = run(work())
    plain(json.dumps(gone) if as_json else f"{gone['name']} removed, {size(gone['freed'])} freed")


@click.command()
@_where
@ending_well
def verify(config_file: Path | None, store: Path | None, server: str | None, as_json: bool) -> None:
    """Hash every blob, follow every manifest, and say what is not as promised. Changes nothing.

    Exit code 1 when there is a problem. With --json each problem is an object on a line, the last line their number.

    \b
    Example:
      mirror verify --store /srv/models
    """
    settings, server = _settled(config_file, store, server)

    async def work() -> int:
        async with reached(settings, server, "verify", create=False) as mirror:
            return await _verify(mirror, as_json=as_json)

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
