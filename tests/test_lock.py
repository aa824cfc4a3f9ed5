"""The lock: one process at a time, and it never outlives its holder."""

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mirror.errors import StoreBusy, StoreUnusable
from mirror.store import StoreLock, holder

HOLDING = """
import sys, pathlib
from mirror.store import StoreLock
StoreLock(pathlib.Path(sys.argv[1]), "mirror serve").take().announce("http://127.0.0.1:11434")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a lock can be."""
    return tmp_path / "lock"


def test_a_second_taker_is_told_who_holds_it_and_where_it_listens(path: Path) -> None:
    """A command can then talk to the server instead."""
    first = StoreLock(path, "mirror serve").take()
    first.announce("http://127.0.0.1:11434")
    with pytest.raises(StoreBusy) as busy:
        StoreLock(path, "mirror pull").take()
    assert (busy.value.holder, busy.value.url) == (f"mirror serve (process {os.getpid()})", "http://127.0.0.1:11434")
    first.release()


def test_released_it_can_be_taken_and_says_nothing_of_the_last_holder(path: Path) -> None:
    """The address of a server that is gone would lead commands astray."""
    first = StoreLock(path, "a holder with quite a long name").take()
    first.announce("http://127.0.0.1:1")
    first.release()
    first.release()
    assert holder(path) is None
    second = StoreLock(path, "b").take()
    found = holder(path)
    assert found is not None
    assert (found.holder, found.url) == (f"b (process {os.getpid()})", None)
    second.release()


def test_asking_who_holds_it_changes_nothing(path: Path) -> None:
    """Every command asks."""
    assert holder(path) is None
    assert not path.exists()
    lock = StoreLock(path, "x").take()
    before = path.read_bytes()
    assert holder(path) is not None
    assert path.read_bytes() == before
    lock.release()


def test_who_only_asks_does_not_keep_another_from_taking_it(path: Path) -> None:
    """A server that starts while a command looks must not be told that the store is busy."""
    path.touch()
    asking = os.open(path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    leaving = threading.Timer(0.02, os.close, [asking])
    leaving.start()
    StoreLock(path, "x").take().release()
    leaving.join()


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"null", b'{"holder": 1}', b"\xff\xff", b'{"url": null}'])
def test_a_lock_file_that_says_nothing_readable_is_still_a_lock(path: Path, said: bytes) -> None:
    """It may be read while it is being written."""
    lock = StoreLock(path, "x").take()
    path.write_bytes(said)
    found = holder(path)
    assert found is not None
    assert (found.holder, found.url) == ("another process", None)
    lock.release()


def test_the_death_of_its_holder_frees_it(path: Path) -> None:
    """After kill -9 the next start must not need a person to remove a file."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreBusy, match=f"mirror serve .process {process.pid}"):
            StoreLock(path, "x").take()
        process.kill()
        process.wait()
        StoreLock(path, "x").take().release()


def test_a_lock_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    """A missing folder is not a busy store."""
    with pytest.raises(StoreUnusable, match="No such file"):
        StoreLock(tmp_path / "missing" / "lock", "x").take()


def test_a_lock_file_that_was_removed_is_made_again(path: Path) -> None:
    """Somebody tidied up; without the file a second server would start on the store."""
    lock = StoreLock(path, "mirror serve").take()
    lock.announce("http://127.0.0.1:1")
    lock.keep()
    path.unlink()
    assert holder(path) is None, "this is the danger"
    lock.keep()
    found = holder(path)
    assert found is not None
    assert found.url == "http://127.0.0.1:1"
    lock.release()
    assert holder(path) is None


def test_who_lost_the_lock_is_told(path: Path) -> None:
    """Two that write are worse than one that stops."""
    lock = StoreLock(path, "mirror serve").take()
    path.unlink()
    other = StoreLock(path, "another").take()
    with pytest.raises(StoreBusy, match="another"):
        lock.keep()
    other.release()
    path.unlink()
    path.parent.rename(path.parent.with_name("gone"))
    lock.keep()
    lock.release()
