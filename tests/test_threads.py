"""Blocking work off the loop is never left running unseen."""

import asyncio
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mirror.threads import in_thread

PATIENCE_S = 10
HEAPS = """
import ctypes, sys, threading
from mirror.threads import share_heaps
if sys.argv[1] == "shared":
    share_heaps()
meet, held = threading.Barrier(9), []
def work():
    meet.wait()
    held.append([bytearray(10_000) for _ in range(100)])
    meet.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for one in threads: one.start()
meet.wait(); meet.wait()
for one in threads: one.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """One thread, so that a second job has to wait for the first."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


class Work:
    """Work that goes on until it is let go, and says where it is."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let_go = threading.Event()
        self.done = False
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> str:
        """Wait to be let go."""
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.let_go.wait(PATIENCE_S)
        self.done = True
        return "done"


async def test_it_returns_what_the_work_returns_from_another_thread(threads: ThreadPoolExecutor) -> None:
    """The loop goes on meanwhile."""
    assert await in_thread(threads, threading.get_ident) != threading.get_ident()


async def test_it_raises_what_the_work_raises(threads: ThreadPoolExecutor) -> None:
    """A failure must not stay in a thread."""
    with pytest.raises(ZeroDivisionError):
        await in_thread(threads, lambda: 1 / 0)


async def test_cancelled_it_stops_the_work_and_waits_until_it_has_let_go(threads: ThreadPoolExecutor) -> None:
    """Descriptors are closed afterwards: closed earlier, the thread might write into another file."""
    work = Work()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        task = group.create_task(in_thread(threads, work, work.let_go.set))
        await work.begun.wait()
        task.cancel()
    assert task.cancelled()
    assert work.done


async def test_cancelled_twice_it_still_waits(threads: ThreadPoolExecutor) -> None:
    """A stop that is asked for again, as at shutdown, must not leave the thread alone with the file."""
    work = Work()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        task = group.create_task(in_thread(threads, work))
        await work.begun.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        work.let_go.set()
    assert task.cancelled()
    assert work.done


async def test_a_time_limit_around_it_is_still_a_time_limit(threads: ThreadPoolExecutor) -> None:
    """It must not swallow the cancelling that asyncio.timeout does."""
    work = Work()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await in_thread(threads, work, work.let_go.set)


async def test_cancelled_work_that_fails_while_stopping_ends_as_cancelled(threads: ThreadPoolExecutor) -> None:
    """Who cancelled does not want to know."""
    work = Work()

    def failing() -> None:
        work()
        raise OSError("stopped in the middle")

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        task = group.create_task(in_thread(threads, failing, work.let_go.set))
        await work.begun.wait()
        task.cancel()
    assert task.cancelled()


async def test_work_that_has_not_begun_is_never_begun_after_a_cancel(threads: ThreadPoolExecutor) -> None:
    """Waiting for a busy thread only to do what nobody wants would delay the end of everything."""
    first, second = Work(), Work()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(in_thread(threads, first))
        await first.begun.wait()
        waiting = group.create_task(in_thread(threads, second))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.let_go.set()
    assert not second.begun.is_set()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a heap for each thread")
def test_threads_share_two_heaps() -> None:
    """A heap for each thread is never given back: a mirror under load had half as much memory again."""

    def heaps(how: str) -> int:
        said = subprocess.run([sys.executable, "-c", HEAPS, how], capture_output=True, text=True, check=True).stdout
        return len(re.findall("<heap nr", said))

    assert heaps("shared") <= 2
    assert heaps("apart") > 2
