"""Batches, built on one screen."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from mirror.app.prompting import Prompting
from mirror.batches import Batches, BatchFace, Files, Worker
from mirror.config import Settings
from mirror.fill import Admission
from mirror.prompts import Lines
from mirror.pulls import WallClock

_THREADS = 4


@dataclass(frozen=True, slots=True)
class Batching:
    """What keeps batches and their files, and what does them."""

    batches: Batches
    files: Files
    lines: Lines
    worker: Worker

    def face(self, settings: Settings, prompting: Prompting, guarded: Callable[[], bool]) -> BatchFace:
        """Return their routes; ``guarded`` says whether there are keys."""
        sight = prompting.sight(settings, guarded)
        run = settings.prompts.batch_run
        return BatchFace(self.files, self.batches, self.lines, self.worker, prompting.worker, sight, run)


@asynccontextmanager
async def opened_batching(
    settings: Settings, engine: AsyncEngine, state: Path, prompting: Prompting, admission: Admission
) -> AsyncIterator[Batching]:
    """Build it, with what an earlier life has left. Raises PromptsUnusable."""
    said, clock, lines = settings.prompts, WallClock(), Lines(engine)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="batches") as threads:
        largest, most = said.file_size, said.files_size
        files = Files(engine, state / "files", threads, largest=largest, most_bytes=most, now=clock.now)
        batches = Batches(engine, clock.now)
        await files.load()
        await batches.load()
        worker = Worker(
            batches,
            files,
            lines,
            prompting.prompts,
            prompting.worker,
            admission,
            clock,
            aliases=dict(settings.dispatch.aliases),
            at_once=said.at_once,
            longest_line=min(settings.proxy.max_body, said.max_size),
            keep_s=said.keep,
        )
        yield Batching(batches, files, lines, worker)
