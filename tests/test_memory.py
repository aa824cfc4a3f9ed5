"""Memory does not grow with the blob or with those who read it."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the stubs are not installed
import pytest

from mirror.demo.model import write_model
from mirror.demo.registry import running_registry
from mirror.values import ByteRange, Manifest
from tests.support import Machine, blob_path, machine, parts

SIZE = 300_000_000
MOST_GROWTH = 60_000_000
CONFIG = """\
server: {{host: 127.0.0.1, port: 0}}
upstream: {{url: "{url}"}}
cache: {{directory: {folder}/store}}
"""


async def drained(client: Machine, path: str, span: ByteRange) -> int:
    """Read a range and keep nothing of it."""
    headers = {"Range": f"bytes={span.start}-{span.stop - 1}"}
    count = 0
    async with client.session.get(client.url(path), headers=headers) as answer:
        async for chunk in answer.content.iter_any():
            count += len(chunk)
    return count


async def serving(process: Process) -> str:
    """Return where it listens, once it says so; what it said instead is in the error."""
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(20):
        while line := await process.stderr.readline():
            said += line
            if b'"event": "serving"' in line:
                return str(json.loads(line)["url"])
    raise AssertionError(said.decode())


@pytest.mark.timeout(120)
async def test_memory_stays_flat(tmp_path: Path) -> None:
    """Sixteen ranges of 300 MB filled and served, and once more from the store."""
    model = await asyncio.to_thread(write_model, tmp_path / "registry", size=SIZE, name="library/m")
    digest = Manifest.parse(model.manifest).layers[0].digest
    async with running_registry(model.folder) as registry:
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(url=registry.url, folder=tmp_path))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mirror", "serve", "--config", str(config), stderr=PIPE
        )
        try:
            url = await serving(process)
            async with machine(url) as client:
                await client.manifest()
                before = psutil.Process(process.pid).memory_info().rss
                for _ in range(2):
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(drained(client, blob_path(digest), one)) for one in parts(SIZE)]
                    assert sum(task.result() for task in tasks) == SIZE
                    growth = psutil.Process(process.pid).memory_info().rss - before
                    assert growth < MOST_GROWTH
        finally:
            process.terminate()
            await process.communicate()
