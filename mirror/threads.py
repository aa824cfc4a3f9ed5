"""Blocking work off the loop that is never left running unseen. Touches nothing by itself."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
_END_S = 10.0


def _nothing() -> None:
    pass


async def in_thread(threads: Executor, work: Callable[[], T], stop: Callable[[], None] = _nothing) -> T:
    """Run ``work`` in one of ``threads`` and return what it returns.

    Cancelled, it calls ``stop`` and waits, for some seconds at most, until the thread has let go of what it
    works on, so that descriptors can be closed afterwards.
    """
    job = threads.submit(work)
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        stop()
        if not job.cancelled():
            ended, loop = asyncio.Event(), asyncio.get_running_loop()
            job.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await ended.wait()
        raise
