"""``mirror rollback``: a tag back to what it meant before."""

import json
from typing import Any

import click

from mirror.cli.options import Where, fail, on_a_mirror, run
from mirror.cli.reach import Reached, reached
from mirror.cli.text import ago, columns, followed, plain, progress_bars, size
from mirror.values import ModelName

View = dict[str, Any]


@click.command()
@click.argument("name")
@click.option("--to", metavar="DIGEST", help="One of --list, or four of its first digits or more; else the last one.")
@click.option("--list", "listing", is_flag=True, help="List what the tag meant before, and change nothing.")
@on_a_mirror
def rollback(where: Where, name: str, to: str | None, listing: bool) -> None:
    """Put a model's tag back to what it meant before its upstream moved it, and hold it there.

    \b
    Examples:
      mirror rollback llama3.2
      mirror rollback llama3.2 --list
      mirror rollback llama3.2 --to a80c4f17acd5

    What is still in the store is used, the rest is fetched by its digest; until all of it is here, the tag means what
    it meant. A held tag stays where it is until mirror update names it. With --json each step is an object on a line.
    """
    if listing and to is not None:
        raise click.UsageError("Give --to or --list, not both.")
    ModelName.parse(name, host=where.settings.upstream.host)

    async def show() -> list[View]:
        async with reached(where.settings, where.server, "rollback", create=False) as mirror:
            return await mirror.earlier(name)

    async def go_back() -> View:
        async with reached(where.settings, where.server, "rollback", create=False) as mirror:
            return await _go_back(mirror, name, to, as_json=where.as_json)

    if listing:
        _print(run(show()), name, as_json=where.as_json)
        return
    last = run(go_back())
    if "error" in last:
        fail(last["error"], 1)
    if not where.as_json:
        plain(f"{last['name']} is held at {_short(last)}, {size(last['fetched'])} fetched now")


async def _go_back(mirror: Reached, name: str, to: str | None, *, as_json: bool) -> View:
    with progress_bars() as bars:
        async with mirror.rollback(name, to) as steps:
            return await followed(steps, name, bars, as_json=as_json)


def _print(found: list[View], name: str, *, as_json: bool) -> None:
    if as_json:
        plain(json.dumps(found, indent=2))
    elif found:
        rows = [(_short(one), size(one["size"]), size(one["lacking"]), ago(one["replaced_at"])) for one in found]
        columns(("ID", "SIZE", "TO FETCH", "REPLACED"), rows)
    else:
        plain(f"nothing earlier is known of {name}")


def _short(view: View) -> str:
    return str(view["digest"]).removeprefix("sha256:")[:12]
