"""A registry, a mirror in front of it, and a model pulled twice the way Ollama does it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mirror.app import running_mirror
from mirror.config import Settings, load
from mirror.demo.model import DemoModel, write_model
from mirror.demo.ollama import PullReport, pull
from mirror.demo.registry import RunningRegistry, running_registry

NAME = "library/demo"
_SMALLEST_PART = 1_000_000


@dataclass(frozen=True, slots=True)
class Round:
    """One pull through the mirror: what the client saw, and what the registry above had to send for it."""

    title: str
    report: PullReport
    upstream_bytes: int

    @property
    def rate(self) -> float:
        """Bytes per second to the client."""
        return self.report.bytes / max(self.report.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything the demo has standing: the registry, the mirror in front of it, the model."""

    registry: RunningRegistry
    mirror_url: str
    model: DemoModel

    async def pull(self, title: str, progress: Callable[[int], None] | None = None) -> Round:
        """Pull the model through the mirror; digests are checked by the client, which raises where one is wrong."""
        before = self.registry.counters.blob_bytes
        report = await pull(self.mirror_url, f"{NAME}:latest", part_min=_SMALLEST_PART, progress=progress)
        return Round(title, report, self.registry.counters.blob_bytes - before)


@asynccontextmanager
async def stage(
    size: int, port: int, progress: Callable[[int], None] | None = None, rate: int | None = None
) -> AsyncIterator[Stage]:
    """Make a model of about ``size`` bytes in a folder that goes away afterwards, and start both servers.

    ``rate`` bounds the bytes per second from the registry.
    """
    with tempfile.TemporaryDirectory(prefix="mirror-demo-") as folder:
        base = Path(folder)
        model = await asyncio.to_thread(write_model, base / "registry", size=size, name=NAME, progress=progress)
        async with (
            running_registry(base / "registry") as registry,
            running_mirror(_settings(base, registry.url, port, rate)) as mirror,
        ):
            yield Stage(registry, mirror.url, model)


def _settings(base: Path, upstream: str, port: int, rate: int | None) -> Settings:
    flags: dict[str, object] = {
        "server.host": "127.0.0.1",
        "server.port": port,
        "cache.directory": str(base / "store"),
        "upstream.url": upstream,
        "upstream.rate": rate,
        "logging.level": "WARNING",
    }
    return load(None, {}, flags).settings
