"""Taking files away: their names at once, their bytes in a thread."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from mirror.faultpoints import passing
from mirror.store.layout import Layout
from mirror.store.room import Room
from mirror.threads import in_thread


class Trash:
    """Of a large file the bytes take a while to go, and the loop must not wait for it. For the event loop's thread.

    What a crash leaves here is found at the next start among what is temporary.
    """

    def __init__(self, layout: Layout, room: Room) -> None:
        self._layout = layout
        self._room = room
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trash")

    def take(self, path: Path) -> None:
        """Take a file away. Raises OSError."""
        aside = self._layout.temporary / uuid4().hex
        os.replace(path, aside)
        passing("drop.renamed")
        with suppress(RuntimeError):  # the store is closed
            self._thread.submit(_unlink, aside)

    def take_blob(self, path: Path) -> None:
        """Take a proven blob away. Raises OSError."""
        size = path.stat().st_size
        self.take(path)
        self._room.proven -= size

    async def emptied(self) -> None:
        """Wait until what was taken so far is off the disk."""
        await in_thread(self._thread, lambda: None)

    def close(self) -> None:
        """Empty it, and take no more."""
        self._thread.shutdown()


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
    passing("drop.unlinked")
