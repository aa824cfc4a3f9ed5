"""``mirror export|import``: models carried by hand, to where no line leads."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, BinaryIO

import click

from mirror.cli.keeping import told
from mirror.cli.options import Where, fail, on_a_mirror, run
from mirror.cli.reach import Reached, Steps, reached
from mirror.cli.text import plain, progress_bars, size
from mirror.errors import BadBundle
from mirror.values import Digest, ModelName, NamePattern

_CHUNK = 1 << 20


@click.command("export")
@click.argument("names", nargs=-1, metavar="[NAME|PATTERN]...")
@click.option("--all", "everything", is_flag=True, help="Every model that is complete.")
@click.option("--output", "-o", required=True, metavar="FILE", help="Where to write the bundle; - is standard output.")
@click.option(
    "--since",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An earlier bundle that the other side has: what it holds is left out. May be given several times.",
)
@on_a_mirror
def export_models(where: Where, names: tuple[str, ...], everything: bool, output: str, since: tuple[Path, ...]) -> None:
    """Write models into one tar, which another mirror imports, or tar unpacks into an Ollama's models folder.

    Interrupted, it goes on from FILE.partial when it is run again.

    \b
    Examples:
      mirror export llama3.2 'qwen3:*' -o models.tar
      mirror export --all -o december.tar --since november.tar
      mirror export llama3.2 -o - | ssh other mirror import -
    """
    if bool(names) is everything:
        raise click.UsageError("Give models' names, or --all.")
    host = where.settings.upstream.host
    patterns = [NamePattern.parse(one, host=host) for one in names or ("*/*/*:*",)]

    async def work() -> dict[str, Any]:
        async with reached(where.settings, where.server, "export", create=False) as mirror:
            chosen = await _chosen(mirror, patterns, host)
            return await _export(mirror, chosen, output, since)

    view = run(work())
    if output == "-":
        return
    if where.as_json:
        plain(json.dumps(view))
    else:
        plain(f"{output}: {len(view['models'])} models, {view['blobs']} blobs, {size(view['size'])}")


async def _chosen(mirror: Reached, patterns: list[NamePattern], host: str) -> list[str]:
    """The complete models that are meant. Raises BadBundle for a pattern that means none."""
    ours = [one["name"] for one in await mirror.models() if one["complete"] and one["from"] is None]
    there = [ModelName.parse(one, host=host) for one in ours]
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name.short for name in there if pattern.matches(name)]
        if not found:
            raise BadBundle(f"no complete model in the store is {pattern}")
        chosen |= dict.fromkeys(found)
    return sorted(chosen)


async def _export(mirror: Reached, names: list[str], output: str, since: tuple[Path, ...]) -> dict[str, Any]:
    from mirror.bundles import Members, read_since, save

    left_out: set[Digest] = set()
    for path in since:
        left_out |= await asyncio.to_thread(read_since, path)
    without = sorted(map(str, left_out))
    members = Members.parse(await mirror.describe_bundle(names, without))
    if output == "-":
        async for piece in mirror.bundle(names, without, 0):
            await asyncio.to_thread(sys.stdout.buffer.write, piece)
        await asyncio.to_thread(sys.stdout.buffer.flush)
    else:
        with progress_bars() as bars:
            bar = bars.add_task(Path(output).name, total=members.total)

            def report(done: int, total: int | None) -> None:
                bars.update(bar, completed=done, total=total)

            await save(Path(output), members, lambda start: mirror.bundle(names, without, start), report)
    blobs = sum(member.path.startswith("blobs/") for member in members)
    return {"file": output, "models": names, "blobs": blobs, "size": members.total, "left_out": len(without)}


@click.command("import")
@click.argument("source", metavar="FILE|DIR|-")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@on_a_mirror
def import_models(where: Where, source: str, names: tuple[str, ...]) -> None:
    """Take models in: from a bundle, or straight from an Ollama's models folder or another mirror's store.

    Every blob is hashed before it counts, and models come in all together or not at all. From a folder on the same
    file system nothing is copied (reflink or hard link). Names choose models of a folder; of a file all come.

    \b
    Examples:
      mirror import models.tar
      mirror import ~/.ollama/models
      mirror import /srv/other/store llama3.2 qwen3:8b
      ssh other mirror export llama3.2 -o - | mirror import -
    """
    path = Path(source)
    if names and not path.is_dir():
        raise click.UsageError("Names can be chosen from a folder only; of a file all models come.")
    for name in names:
        ModelName.parse(name, host=where.settings.upstream.host)

    async def work(file: BinaryIO | None) -> dict[str, Any]:
        async with reached(where.settings, where.server, "import", create=True) as mirror:
            if file is None:
                coming = mirror.import_folder(folder, list(names) or None)
            else:
                coming = mirror.import_tar(_chunks(file), _length(file))
            async with coming as steps:
                return await _shown(steps, where, path.name)

    folder = str(path.absolute())
    if path.is_dir():
        view = run(work(None))
    else:
        with _opened(source) as opened:
            view = run(work(opened))
    if view.get("status") != "success":
        fail("the mirror ended without an answer", 1)
    if not where.as_json:
        for name in view["models"]:
            plain(f"{name}{' (in place of another)' if name in view['replaced'] else ''}")
        new = f"{view['new_blobs']} new blobs, {size(view['new_bytes'])}"
        plain(f"{len(view['models'])} models: {new}; {view['blobs_here_before']} were here")


def _opened(source: str) -> BinaryIO:
    try:
        return sys.stdin.buffer if source == "-" else Path(source).open("rb")
    except OSError as error:
        raise BadBundle(f"cannot read {source}: {error.strerror}") from error


def _length(file: BinaryIO) -> int | None:
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


async def _chunks(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk


async def _shown(steps: Steps, where: Where, what: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    with progress_bars() as bars:
        bar = bars.add_task(what, total=None)
        async for step in told(steps, as_json=where.as_json):
            last = step
            if "done" in step:
                bars.update(bar, completed=step["done"], total=step["total"])
    return last
