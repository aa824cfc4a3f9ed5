"""``mirror users`` and ``mirror backends``: turns on the Ollamas of a running mirror."""

import csv
import json
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import Where, on_a_mirror, run
from mirror.cli.reach import serving
from mirror.cli.text import columns, plain

if TYPE_CHECKING:
    from mirror.client import AdminClient

View = dict[str, Any]


@click.group()
def users() -> None:
    """Users, their requests that wait and run, and what they get of the Ollamas.

    \b
    Examples:
      mirror users list
      mirror users block batch
      mirror users weigh ann 2

    What is changed here holds until the mirror ends; dispatch.weights holds longer.
    """


@users.command(name="list")
@on_a_mirror
def list_users(where: Where) -> None:
    """List users: who waits first, then who had most.

    \b
    Examples:
      mirror users list
      mirror users list --json | jq '.users[] | select(.waiting > 0)'
    """
    view = _on(where, lambda mirror: mirror.turns())
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    rows = [
        (
            one["user"],
            str(one["waiting"]),
            str(one["running"]),
            str(one["taken"]),
            f"{one['cost']:.0f}",
            f"{one['weight']:g}",
            "blocked" if one["blocked"] else "",
        )
        for one in view["users"]
    ]
    columns(("USER", "WAITING", "RUNNING", "HAD", "TOKENS", "WEIGHT", ""), rows)


@users.command()
@click.argument("user")
@on_a_mirror
def block(where: Where, user: str) -> None:
    """Serve a user no more: what waits is kept, what runs goes on, what is new is refused.

    \b
    Example:
      mirror users block batch
    """
    _act(where, lambda mirror: mirror.turns_act("block", user=user), f"{user} is blocked")


@users.command()
@click.argument("user")
@on_a_mirror
def unblock(where: Where, user: str) -> None:
    """Serve a user again.

    \b
    Example:
      mirror users unblock batch
    """
    _act(where, lambda mirror: mirror.turns_act("unblock", user=user), f"{user} is served again")


@users.command()
@click.argument("user")
@click.argument("weight", type=click.FloatRange(0, 1000, min_open=True))
@on_a_mirror
def weigh(where: Where, user: str, weight: float) -> None:
    """Give a user so many times the share of others.

    \b
    Examples:
      mirror users weigh ann 2
      mirror users weigh batch 0.5
    """
    _act(where, lambda mirror: mirror.turns_act("weigh", user=user, weight=weight), f"{user} has weight {weight:g}")


@users.command()
@click.option("--days", type=click.IntRange(1, 3660), default=30, show_default=True, help="How many, with today.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets and bills.")
@on_a_mirror
def usage(where: Where, days: int, *, as_csv: bool) -> None:
    """Show what each user had of each model, by day (UTC): answers, and tokens read and made.

    \b
    Examples:
      mirror users usage --days 7
      mirror users usage --days 31 --csv > november.csv
    """
    rows = _on(where, lambda mirror: mirror.usage_by_day(days))["usage"]
    if where.as_json:
        plain(json.dumps({"usage": rows}, indent=2))
        return
    names = ("day", "user", "model", "answers", "prompt", "made")
    if as_csv:
        written = StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([[_as_cell(one[name]) for name in names] for one in rows])
        plain(written.getvalue().rstrip("\n"))
        return
    columns(
        ("DAY", "USER", "MODEL", "ANSWERS", "READ", "MADE"), [tuple(str(one[key]) for key in names) for one in rows]
    )


def _as_cell(value: str | int) -> str | int:
    """Return a value as a spreadsheet takes it for text: one that begins like a formula would be run."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


@click.group()
def backends() -> None:
    """The Ollamas that requests run on.

    \b
    Examples:
      mirror backends list
      mirror backends drain gpu1:11434
    """


@backends.command(name="list")
@on_a_mirror
def list_backends(where: Where) -> None:
    """List the Ollamas: how they are, how busy, what they have loaded.

    \b
    Example:
      mirror backends list
    """
    view = _on(where, lambda mirror: mirror.turns())
    if where.as_json:
        plain(json.dumps(view["backends"], indent=2))
        return
    rows = [
        (
            one["id"],
            one["state"],
            f"{one['active']}/{one['slots']}",
            str(one["models"]),
            ", ".join(name.rpartition("/")[2] for name in one["loaded"][:3]),
            one["problem"] or "",
        )
        for one in view["backends"]
    ]
    columns(("OLLAMA", "STATE", "BUSY", "MODELS", "LOADED", ""), rows)


@backends.command()
@click.argument("backend")
@on_a_mirror
def drain(where: Where, backend: str) -> None:
    """Give an Ollama nothing new; what runs there goes on.

    \b
    Example:
      mirror backends drain gpu1:11434
    """
    _act(where, lambda mirror: mirror.turns_act("drain", backend=backend), f"{backend} gets nothing new")


@backends.command()
@click.argument("backend")
@on_a_mirror
def enable(where: Where, backend: str) -> None:
    """Give an Ollama work again.

    \b
    Example:
      mirror backends enable gpu1:11434
    """
    _act(where, lambda mirror: mirror.turns_act("enable", backend=backend), f"{backend} gets work again")


def _act(where: Where, work: "Callable[[AdminClient], Awaitable[View]]", said: str) -> None:
    view = _on(where, work)
    plain(json.dumps(view, indent=2) if where.as_json else said)


def _on(where: Where, work: "Callable[[AdminClient], Awaitable[View]]") -> View:
    async def asked() -> View:
        async with serving(where.settings, where.server) as mirror:
            return await work(mirror)

    return run(asked())
