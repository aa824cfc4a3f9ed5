"""Blocking work off the loop that is never left running unseen. Touches nothing by itself."""

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
_END_S = 10.0
_M_ARENA_MAX = -8
_HEAPS = 2


def share_heaps() -> None:
    """Have all threads of this process allocate from two heaps of the C library; call it before they begin.

    glibc makes one for each thread, up to eight for each processor (mallopt(3), M_ARENA_MAX), and what a thread frees
    in one is of no use to those of another: under the load of ``bench.soak`` 189 MB were resident where 120 are
    enough. Other C libraries have no such switch, and nothing is done there.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


def _nothing() -> None:
    pass


async def in_thread(threads: Executor, work: Callable[[], T], stop: Callable[[], None] = _nothing) -> T:
    """Run ``work`` in one of ``threads`` and return what it returns.

    Cancelled, however often, it calls ``stop`` and waits, for some seconds at most, until the thread has let go of
    what it works on, so that descriptors can be closed afterwards.
    """
    job = threads.submit(work)
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        stop()
        if not job.cancelled():
            await _end(job)
        raise


async def _end(job: Future[T]) -> None:
    """Wait for the end of ``job`` or of our patience; to be called while a CancelledError is on its way."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: our patience was at its end long before
            loop.call_soon_threadsafe(ended.set)

    job.add_done_callback(tell)
    deadline = loop.time() + _END_S
    while not ended.is_set() and loop.time() < deadline:
        with suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout_at(deadline):
                await ended.wait()
