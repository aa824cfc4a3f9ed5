"""Promise 3: ``kill -9`` at any moment, and nothing false is on the disk."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mirror.store import Layout, holder
from mirror.values import Digest, Manifest
from tests.crash_writer import contents
from tests.stored import made, opened, problems

PATIENCE_S = 20.0
CONTENTS = contents()


async def test_nothing_false_is_left_by_a_kill_at_a_random_moment(tmp_path: Path) -> None:
    """Promise 3: a mirror is killed by the kernel, by power and by people; what it says must still be true."""
    await kill_and_check(tmp_path, rounds=12, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_nothing_false_is_left_by_hundreds_of_kills(tmp_path: Path) -> None:
    """Promise 3: the moments between two steps are short, so many are needed to meet them all."""
    await kill_and_check(tmp_path, rounds=200, seed=int(time.time()))


async def kill_and_check(folder: Path, *, rounds: int, seed: int) -> None:
    """Kill writer after writer on one store; before and after each start, look at every file."""
    dice, seen, layout = random.Random(seed), Counter[str](), made(folder)
    for number in range(rounds):
        killed_after_s = dice.uniform(0.005, 0.3)
        write_and_kill(layout, seed=seed * 1000 + number, after_s=killed_after_s)
        where = f"seed {seed}, round {number}, killed after {killed_after_s:.3f} s"
        seen += check_blobs_and_manifests(layout, where)
        seen += check_partials(layout, where)
        async with opened(folder) as store:
            assert store.problems == [], where
            assert problems(layout) == [], where
            assert {one.path for one in store.complete} == set(manifests(layout)), where
            check_partials(layout, where)
            assert not list(layout.temporary.iterdir()), where
    assert all(seen[kind] for kind in ("blobs", "manifests", "partials")), f"nothing was tested: {seen}"


def write_and_kill(layout: Layout, *, seed: int, after_s: float) -> None:
    """Run a writer on the store, and kill it so long after it has taken the lock."""
    command = [sys.executable, "-m", "tests.crash_writer", str(layout.root.parent), str(seed)]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + PATIENCE_S
        while holder(layout.state / "lock") is None and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(after_s)
        process.kill()
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL, said.decode()


def check_blobs_and_manifests(layout: Layout, where: str) -> Counter[str]:
    """Promises 1 and 2, on the disk as the kill left it."""
    sizes = {}
    for path in layout.blobs.iterdir():
        content = path.read_bytes()
        assert Digest.of(content).filename == path.name, where
        sizes[Digest.of(content)] = len(content)
    for path in manifests(layout):
        for blob in Manifest.parse(path.read_bytes()).blobs:
            assert sizes.get(blob.digest) == blob.size, f"{where}: {path.name} lacks {blob.digest.short}"
    return Counter(blobs=len(sizes), manifests=len(manifests(layout)))


def check_partials(layout: Layout, where: str) -> Counter[str]:
    """Every range that is recorded holds the right bytes."""
    ranges = 0
    for record in layout.partials.glob("*.json"):
        digest = Digest(record.stem)
        if layout.partial(digest).exists():
            said, found = json.loads(record.read_bytes()), layout.partial(digest).read_bytes()
            assert said["size"] == len(found) == len(CONTENTS[digest]), where
            for start, stop in said["ranges"]:
                assert found[start:stop] == CONTENTS[digest][start:stop], f"{where}: {digest.short} at {start}"
                ranges += 1
    return Counter(partials=ranges)


def manifests(layout: Layout) -> list[Path]:
    """Every manifest among the complete models."""
    return [path for path in layout.manifests.rglob("*") if path.is_file()]
