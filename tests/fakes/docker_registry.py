"""Debian's docker-registry, run on loopback over a folder: the plain registry others have."""

import asyncio
import contextlib
import re
import shutil
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

_CONFIG = """\
version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {folder}/store}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:0"}}
"""
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")
_POLL_S = 0.01


def skip_without(*programs: str) -> pytest.MarkDecorator:
    """Mark a test that is skipped, by name, where one of these programs is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}; see make system-test")


@asynccontextmanager
async def running_docker_registry(folder: Path, *, timeout: float = 10) -> AsyncIterator[str]:
    """Run an empty docker-registry while the block runs, all of it below ``folder``; yields its URL."""
    config, log = folder / "config.yml", folder / "log"
    config.write_text(_CONFIG.format(folder=folder))
    # Its log is a file, not a pipe: nobody need read it for the program to go on.
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "docker-registry", "serve", str(config), stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(timeout):
            url = f"http://{await _address(process, log)}"
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        async with asyncio.timeout(timeout):
            await process.wait()


async def _address(process: Process, log: Path) -> str:
    """Return where it listens once its log says so, which is when it takes connections."""
    while True:
        text = await asyncio.to_thread(log.read_text)
        if found := _LISTENING.search(text):
            return found[1]
        if process.returncode is not None:
            raise RuntimeError(f"docker-registry ended: {text}")
        await asyncio.sleep(_POLL_S)
