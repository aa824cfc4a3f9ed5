"""Promise 3, one step after the other: ``kill -9`` at every named moment there is."""

import json
import multiprocessing
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.store import Layout
from mirror.values import Digest, Manifest
from tests import crash_at
from tests.bundled import everything
from tests.stored import opened, problems

PATIENCE_S = 30.0
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.crash_at"])  # hundreds of processes, each without a start of Python


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed: how often it passed each point, and what it left."""

    passed: dict[str, int]
    left: dict[str, bytes | None]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The program run to its end, as a user of it would."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "tests.crash_at", str(folder)]
    said = subprocess.run(
        command, cwd=Path(__file__).parent.parent, check=True, capture_output=True, timeout=PATIENCE_S
    )
    return Undisturbed(json.loads(said.stdout), kept(folder))


@pytest.mark.parametrize("point", crash_at.points())
async def test_nothing_false_is_left_by_a_kill_at(point: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """A crash may come between any two steps: at each, the first time and the last, when most else has happened."""
    assert undisturbed.passed[point], "tests/crash_at.py must pass every point there is"
    for times in sorted({1, undisturbed.passed[point]}):
        await kill_and_look(tmp_path / str(times), point, times, undisturbed)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", crash_at.points())
async def test_nothing_false_is_left_by_a_kill_at_every(point: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """What a step means depends on what came before it."""
    for times in range(1, undisturbed.passed[point] + 1):
        await kill_and_look(tmp_path / str(times), point, times, undisturbed)


async def kill_and_look(folder: Path, point: str, times: int, undisturbed: Undisturbed) -> None:
    """Kill a run; look at the disk, at what a start makes of it, and at what another run then comes to."""
    folder.mkdir()
    layout, where = Layout(folder / "store", folder / "state"), f"killed at {point}, time {times}"
    assert ended(folder, point, times) == -signal.SIGKILL, f"not {where}"
    look_at_blobs(layout, where)
    look_at_manifests(layout, where)
    async with opened(folder) as store:
        assert problems(layout) == [], where
        assert not any(layout.temporary.iterdir()), where
        assert store.room.proven == sum(path.stat().st_size for path in layout.blobs.iterdir()), where
        assert all(store.missing(stored) for stored in store.staged), where
        known = {stored.name.model for shelf in (store.complete, store.staged) for stored in shelf}
        assert crash_at.promised(folder) <= known, where
    await crash_at.main(folder, {})
    assert kept(folder) == undisturbed.left, where


def ended(folder: Path, point: str, times: int) -> int | None:
    """Run the program until it is killed; return how it ended."""
    process = FORKS.Process(target=crash_at.run, args=(folder, point, times))
    process.start()
    process.join(PATIENCE_S)
    try:
        return process.exitcode
    finally:
        process.kill()
        process.join()
        process.close()


def look_at_blobs(layout: Layout, where: str) -> None:
    """Promise 1, on the disk as the kill left it."""
    for path in layout.blobs.glob("*"):
        whole = Digest.of(path.read_bytes()).filename == path.name
        assert whole or Digest.parse(path.name) in crash_at.SPOILED, where


def look_at_manifests(layout: Layout, where: str) -> None:
    """Promise 2, on the disk as the kill left it.

    A blob that is condemned goes before the manifests that name it: else a start would take all for whole again.
    """
    for path in layout.manifests.glob("*/*/*/*"):
        for blob in Manifest.parse(path.read_bytes()).blobs:
            here = layout.blob(blob.digest).exists() or (layout.quarantine / blob.digest.filename).exists()
            assert here or blob.digest in crash_at.SPOILED, f"{where}: {path} lacks {blob.digest}"


def kept(folder: Path) -> dict[str, bytes | None]:
    """All that a run leaves and that a start would find, but for the counts and the lock."""
    found = everything(folder / "store") | everything(folder / "state")
    return {path: content for path, content in found.items() if not path.startswith(("mirror.db", "lock"))}
