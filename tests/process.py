"""The real program, run as a user runs it."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.behind import closed

_LONGEST_S = 40


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OLLAMA")}
    (window,) = closed()["pulls__windows"]  # that of the settings is open half the night
    ours = {"OLLAMA_MIRROR_PULLS_DISK_THRESHOLD": "100%", "OLLAMA_MIRROR_PULLS_WINDOWS": window}
    return {**kept, **ours, **(extra or {})}


async def run(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ended:
    """Run any command to its end."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, env=_environment(env), cwd=cwd
    )
    async with asyncio.timeout(_LONGEST_S):
        out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def mirror(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ended:
    """Run ``mirror`` with these arguments to its end."""
    return await run(sys.executable, "-m", "mirror", *arguments, env=env, cwd=cwd)


@asynccontextmanager
async def serving(
    store: Path, upstream: str, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[str, Process]]:
    """Run ``mirror serve`` while the block lasts; yields its URL and the process, which the block may end itself."""
    command = [sys.executable, "-m", "mirror", "serve", "--host", "127.0.0.1", "--port", "0", "--store", str(store)]
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"OLLAMA_MIRROR_UPSTREAM_URL": upstream, **_environment(env)},
        cwd=store.parent,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_LONGEST_S):
            first = (await process.stdout.readline()).decode()
        yield first.split()[-1], process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_LONGEST_S):
            await process.communicate()
