"""A mirror that stands while a test's own thread blocks: it runs in another thread, on a loop of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.behind import Fronted, fronted

T = TypeVar("T")
_DEADLINE_S = 20.0


class Standing:
    """Hands work to the loop of the mirror, and waits for it."""

    def __init__(self, at: Fronted, loop: asyncio.AbstractEventLoop) -> None:
        self.at = at
        self._loop = loop

    def do(self, work: Callable[[Fronted], Awaitable[T]]) -> T:
        """Return what comes of work with the mirror, which runs on its loop. Raises what that raises."""

        async def run() -> T:
            return await work(self.at)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_DEADLINE_S)


@contextmanager
def standing(folder: Path, **changes: Any) -> Iterator[Standing]:
    """A mirror between a fake registry and a fake Ollama; ``changes`` are settings."""
    found: Future[tuple[Standing, Callable[[], object]]] = Future()

    async def stand() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with fronted(folder, **changes) as at:
            found.set_result((Standing(at, loop), lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(stand())
        except BaseException as error:
            if found.done():
                raise
            found.set_exception(error)

    thread = threading.Thread(target=run, name="mirror that stands")
    thread.start()
    try:
        one, stop = found.result(_DEADLINE_S)
        try:
            yield one
        finally:
            stop()
    finally:
        thread.join(_DEADLINE_S)
