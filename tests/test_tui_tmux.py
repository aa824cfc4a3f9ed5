"""``mirror top`` and ``mirror serve --tui`` in a real terminal of 80 by 24: tmux."""

import asyncio
import json
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process import run
from tests.support import eventually
from tests.test_tui import busy

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

_ENDED = "ended with"


@dataclass(frozen=True)
class Terminal:
    """A terminal in which one command runs; once it has ended its exit code stands there."""

    socket: Path

    async def press(self, *keys: str) -> None:
        """Press keys, by tmux' names."""
        await _tmux(self.socket, "send-keys", *keys)

    async def screen(self) -> str:
        """What stands there."""
        return await _tmux(self.socket, "capture-pane", "-p")

    async def until(self, *wanted: str, gone: str = "") -> str:
        """Wait until all of this stands there, and ``gone`` does not; returns the screen."""
        last = ""

        async def so() -> bool:
            nonlocal last
            last = await self.screen()
            return all(one in last for one in wanted) and not (gone and gone in last)

        try:
            await eventually(so)
        except TimeoutError:
            pytest.fail(f"waited for {wanted}, and no {gone!r}; it shows\n{last}")
        return last


async def _tmux(socket: Path, *arguments: str) -> str:
    ended = await run("tmux", "-u", "-S", str(socket), "-f", os.devnull, *arguments)
    assert ended.code == 0, ended.err
    return ended.out


@asynccontextmanager
async def terminal(folder: Path, *command: str) -> AsyncIterator[Terminal]:
    """Run ``mirror`` with these arguments in a terminal."""
    socket = folder / "tmux"
    said = shlex.join([sys.executable, "-m", "mirror", *command])
    shell = f"{said}; echo {_ENDED} $?; exec cat"
    await _tmux(socket, "new-session", "-d", "-x", "80", "-y", "24", "sh", "-c", shell)
    try:
        yield Terminal(socket)
    finally:
        await _tmux(socket, "kill-server")


async def test_top_shows_users_queue_and_fills_and_answers_keys(tmp_path: Path) -> None:
    """And leaves the mirror as it was."""
    async with busy(tmp_path) as at, terminal(tmp_path, "top", "--server", at.mirror.url) as seen:
        shown = await seen.until("ann", "bob", "llama3.2:latest", "qwen3:8b", "50%", "unknown", "0 models")
        for heading in ("USERS", "BACKENDS", "FILLS", "PULLS", "STORE"):
            assert heading in shown
        assert len(shown.splitlines()) == 24
        await seen.press("j", "b")
        await seen.until("Block bob?")
        await seen.press("n", "k", "b")
        await seen.until("Block ann?")
        await seen.press("n")
        await seen.until(gone="Block ann?")
        await seen.press("h")
        await seen.until("leave; the mirror goes on")
        await seen.press("Escape")
        await seen.until(gone="leave; the mirror goes on")
        await seen.press("q")
        await seen.until(f"{_ENDED} 0")
        assert (await at.client.get("/livez")).status == 200
        assert not any(one.blocked for one in at.mirror.parts.turns.users())


async def test_a_served_mirror_is_watched_and_stopped_in_its_own_terminal(tmp_path: Path) -> None:
    """Its log lies in the state folder meanwhile; n goes on, y stops it in order."""
    store = tmp_path / "store"
    command = ("serve", "--tui", "--offline", "--host", "127.0.0.1", "--port", "0", "--store", str(store))
    async with terminal(tmp_path, *command) as seen:
        await seen.until("0 waiting", "0 models")
        held = json.loads(await asyncio.to_thread((tmp_path / "store.state" / "lock").read_text))
        asked = await run(sys.executable, "-m", "mirror", "status", "--store", str(store))
        assert f"serves at {held['url']}" in asked.out
        await seen.press("q")
        await seen.until("Stop the mirror?")
        await seen.press("n")
        await seen.until(gone="Stop the mirror?")
        await seen.press("q", "y")
        shown = await seen.until(f"{_ENDED} 0")
        assert "mirror serves" in shown
        assert "mirror.log" in shown.replace("\n", "")
    log = await asyncio.to_thread((tmp_path / "store.state" / "mirror.log").read_text)
    assert {"serving", "stopping"} <= {json.loads(line)["event"] for line in log.splitlines()}


async def test_ctrl_c_and_a_signal_stop_a_watched_mirror(tmp_path: Path) -> None:
    """At once, and in order; the terminal is given back."""
    command = ("serve", "--tui", "--offline", "--host", "127.0.0.1", "--port", "0", "--store")
    for number, stop in enumerate(("key", "signal")):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with terminal(folder, *command, str(folder / "store")) as seen:
            await seen.until("0 waiting", "0 models")
            if stop == "key":
                await seen.press("C-c")
            else:
                lock = json.loads(await asyncio.to_thread((folder / "store.state" / "lock").read_text))
                os.kill(int(lock["holder"].partition("process ")[2].rstrip(")")), 15)
            await seen.until(f"{_ENDED} 0", "the mirror stops")
