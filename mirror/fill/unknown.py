"""What the upstream does not know, remembered for a moment. On disk, and of no importance."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diskcache
import structlog

from mirror.threads import in_thread

log = structlog.get_logger(__name__)

_LARGEST = 16 << 20
_TROUBLE = (OSError, sqlite3.Error, diskcache.Timeout)


class Unknown:
    """Keys with an expiry: JSON on disk, never pickles. Whatever goes wrong with it, nothing is remembered then.

    It has a thread of its own: diskcache opens a connection in each thread that asks, and closes only the caller's.
    """

    def __init__(self, folder: Path) -> None:
        """Open it, or begin anew where it is damaged. Blocks."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="unknown")
        self._cache = self._thread.submit(self._opened, folder).result()

    def close(self) -> None:
        """Let go of the files. Blocks for what is under way."""
        if self._cache is not None:
            self._thread.submit(self._cache.close).result()
        self._thread.shutdown()

    async def has(self, key: str) -> bool:
        """Say whether the key was added and has not expired."""
        return bool(await in_thread(self._thread, lambda: self._try("get", key)))

    async def add(self, key: str, expire_s: float) -> None:
        """Remember a key for so long."""
        await in_thread(self._thread, lambda: self._try("set", key, 1, expire_s))

    async def forget(self, key: str) -> None:
        """Forget a key now."""
        await in_thread(self._thread, lambda: self._try("delete", key))

    def _try(self, what: str, *arguments: object) -> object:
        try:
            return getattr(self._cache, what)(*arguments) if self._cache is not None else None
        except _TROUBLE as error:
            log.warning("unknown names not kept", problem=str(error))
            return None

    def _opened(self, folder: Path) -> diskcache.Cache | None:
        try:
            return self._open(folder)
        except _TROUBLE as error:
            log.warning("unknown names forgotten", folder=str(folder), problem=str(error))
            shutil.rmtree(folder, ignore_errors=True)
            return self._open(folder)

    @staticmethod
    def _open(folder: Path) -> diskcache.Cache | None:
        try:
            cache = diskcache.Cache(str(folder), disk=diskcache.JSONDisk, size_limit=_LARGEST)
            cache.get("")
        except OSError:
            return None  # a full or unwritable disk: go on without
        return cache
