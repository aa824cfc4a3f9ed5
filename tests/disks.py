"""File systems that are really small, really full, really read-only. They take root; without it tests are skipped."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str = "4m") -> Iterator[Path]:
    """A file system of its own at ``place``, of 4 MB or as mount(8) is told."""
    place.mkdir()
    done = mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    if done.returncode:
        pytest.skip(f"NOT TESTED: a small disk cannot be made here: mount said {done.stderr.strip()!r}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call mount(8)."""
    return subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)


def read_only(place: Path) -> None:
    """From now on nothing can be written there, also by whoever has files open for writing."""
    mount("-o", "remount,ro", str(place)).check_returncode()


def writable(place: Path) -> None:
    """It can again."""
    mount("-o", "remount,rw", str(place)).check_returncode()


def fill_up(place: Path) -> Path:
    """Take the last byte of room there is; removing the file that is returned gives it back."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return filler
