"""Fetching again what turned out to be damaged."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from mirror.errors import MirrorError
from mirror.events import BlobDamaged, Event, Events
from mirror.fill.pull import Puller, PullProgress
from mirror.store import Store, StoredManifest
from mirror.values import ModelName

log = structlog.get_logger(__name__)


class Repairer:
    """Brings damaged models back to what their manifests say, from upstream. For the event loop's thread.

    What cannot be had now is tried again every ``again_s`` seconds.
    """

    def __init__(self, store: Store, puller: Puller, events: Events, again_s: float) -> None:
        self._store = store
        self._puller = puller
        self._again_s = again_s
        self._wanted = asyncio.Event()
        self._wanted.set()  # an earlier process may have left some
        events.tap(self._hear, BlobDamaged)

    def damaged(self) -> list[StoredManifest]:
        """Return the models that lack a blob because what was there turned out to be none."""
        return self._store.damaged_models()

    async def repair(self, name: ModelName, report: Callable[[PullProgress], None] = lambda _: None) -> PullProgress:
        """Fetch what a model lacks. Raises as Puller.mend does."""
        return await self._puller.mend(name, report)

    async def run(self) -> None:
        """Repair whatever is found damaged, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._again_s):
                    await self._wanted.wait()
            self._wanted.clear()
            for stored in self.damaged():
                try:
                    await self.repair(stored.name)
                except MirrorError as error:
                    log.warning("cannot repair", name=stored.name.short, problem=str(error))

    def _hear(self, _: Event) -> None:
        self._wanted.set()
