"""How things are written for people: sizes, times, columns, progress."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mirror.wording import ago, harmless, size

__all__ = ["ago", "columns", "ending_lines", "followed", "plain", "progress_bars", "size"]


def plain(text: str) -> None:
    """Print a line, at once."""
    click.echo(text)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head, each column as wide as its widest entry. What could move a cursor is shown as ?."""
    rows = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        plain("    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def ending_lines() -> Iterator[Callable[[str], None]]:
    """Give a way to print that waits for the end where bars are on the terminal, and does not wait elsewhere."""
    held: list[str] = []
    yield held.append if Console(stderr=True).is_terminal else plain
    for line in held:
        plain(line)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show bars of bytes on standard error, where that is a terminal; elsewhere nothing."""
    console = Console(stderr=True)
    parts = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*parts, console=console, disable=not console.is_terminal) as progress:
        yield progress


async def followed(steps: AsyncIterator[dict[str, Any]], name: str, bars: Progress, *, as_json: bool) -> dict[str, Any]:
    """Show the steps of a fetch as a bar, or as a line of JSON each; return the last, or an error where none came."""
    bar = bars.add_task(name, total=None)
    last: dict[str, Any] = {"error": "the mirror ended without an answer"}
    async for step in steps:
        last = step
        if as_json:
            plain(json.dumps(step))
        elif "total" in step:
            bars.update(bar, completed=step["completed"], total=step["total"])
    return last
