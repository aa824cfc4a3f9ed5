"""``mirror top``: a running mirror on a terminal, as it goes."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mirror.cli.options import config_option, ending_well, loaded, run, server_option, store_option
from mirror.cli.reach import serving, shown
from mirror.cli.text import plain
from mirror.config import Settings, server_url
from mirror.errors import MirrorError, StoreUnusable

if TYPE_CHECKING:
    from mirror.app import RunningMirror
    from mirror.app.serve import Beside
    from mirror.tui.app import Top


class NoView(MirrorError):
    """The terminal view cannot be shown: its package is missing, or there is no terminal."""


@click.command()
@config_option
@store_option
@server_option
@ending_well
def top(config_file: Path | None, store: Path | None, server: str | None) -> None:
    """Watch a running mirror: users and their queues, backends, fills, pulls, the store.

    \b
    Examples:
      mirror top
      mirror top --server http://mirror:11434
      OLLAMA_MIRROR_API_KEY=... mirror top --server http://mirror:11434

    h shows the keys, q leaves. Looking changes nothing. What changes something is answered by the mirror as it is for
    commands: on its own machine, or with a key that is good for admin. It needs the extra tui.
    """
    settings = loaded(config_file, {"cache.directory": store and str(store)}).settings
    check_view()
    run(_watch(settings, server or (None if store else server_url(os.environ))))


def check_view() -> "type[Top]":
    """Return the view. Raises NoView: it cannot be shown here."""
    try:
        from mirror.tui.app import Top
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        raise NoView("the terminal view needs a package more: pip install 'ollama-mirror[tui]'") from error
    if not all(one.isatty() for one in (sys.stdin, sys.stdout, sys.stderr)):
        raise NoView("the terminal view needs a terminal: input, output and errors must not go elsewhere")
    return Top


async def _watch(settings: Settings, server: str | None) -> None:
    from mirror.tui.source import Source

    async with serving(settings, server) as mirror:
        await check_view()(Source(mirror)).run_async()


def logging_to_a_file(settings: Settings) -> Settings:
    """Return settings whose log leaves the terminal alone. Makes the state folder, where the file is to be in there."""
    if settings.logging.file is not None:
        return settings
    state = settings.cache.state_directory
    try:
        state.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreUnusable(f"cannot make {state}: {error.strerror}") from error
    logging = settings.logging.model_copy(update={"file": state.absolute() / "mirror.log"})
    return settings.model_copy(update={"logging": logging})


def viewed(settings: Settings) -> "Beside":
    """Return what shows a mirror in this terminal while it serves, and stops it where its user says so.

    Why in its own process and loop: docs/decisions/0011-textual.md. A view that fails leaves the mirror serving.
    """
    view = check_view()

    async def show(mirror: "RunningMirror", stopping: asyncio.Event) -> None:
        from mirror.client import AdminClient
        from mirror.tui.source import Source

        async with AdminClient(mirror.url, shown(settings, None)) as client:
            wanted = await view(Source(client), stopping).run_async()
        if wanted:
            stopping.set()
            plain("the mirror stops; Ctrl-C ends it at once")
            return
        plain(f"the view has ended; the mirror goes on at {mirror.url}, and Ctrl-C stops it")

    return show
