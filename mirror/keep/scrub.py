"""Hashing every blob again, now and then: disks forget, and a blob once proven is trusted by everybody."""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from uuid import uuid4

import structlog

from mirror.config import CacheSettings
from mirror.errors import StoreError
from mirror.events import Events, ScrubEnded
from mirror.store import Store
from mirror.store.layout import write_whole
from mirror.store.rehash import Pace, rehash
from mirror.threads import in_thread
from mirror.values import Digest, ModelName

log = structlog.get_logger(__name__)

_NOTE_EVERY_S = 10.0
_LOOK_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Pass:
    """One round over all blobs: when it began and ended (aware), and after which digest it goes on."""

    begun_at: datetime | None = None
    ended_at: datetime | None = None
    after: str = ""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """How far a scrub is, in bytes; and, where one was just found, the damaged blob and the models that lack it."""

    done: int
    total: int
    blobs: int
    damaged: Digest | None = None
    names: tuple[ModelName, ...] = ()


class Scrub:
    """Goes over the blobs in the order of their digests. One round at a time; for the event loop's thread.

    Where a background round is, is written down, so that a restart does not begin it anew.
    """

    def __init__(
        self,
        store: Store,
        settings: CacheSettings,
        events: Events,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._settings = settings
        self._events = events
        self._now = now
        self._turn = asyncio.Lock()
        self._path = store.layout.state / "scrub.json"
        self.last = self._recorded()

    async def run(self) -> None:
        """Begin a round every ``cache.scrub_interval``, and go on with one that was broken off, until cancelled."""
        while self._settings.scrub_interval:
            if self._due():
                try:
                    async with self._turn:
                        await self._go_on()
                except StoreError as error:
                    log.warning("cannot scrub", problem=str(error))
            await asyncio.sleep(_LOOK_EVERY_S)

    async def scrub(self, report: Callable[[Scrubbed], None], rate: int | None) -> Scrubbed:
        """Hash every blob now, at most ``rate`` bytes per second; ``report`` is called after each. Returns the last.

        Raises:
            StoreFull: a damaged blob cannot be put aside; it is not served all the same.
        """
        async with self._turn:
            begun = self._now()
            final = await self._round("", report, rate)
            self.last = Pass(begun, self._now())
            await self._record()
        return final

    async def _go_on(self) -> None:
        if self.last.begun_at is None or self.last.ended_at is not None:
            self.last = Pass(self._now())
        noted = time.monotonic()

        def report(step: Scrubbed) -> None:
            nonlocal noted
            if time.monotonic() - noted > _NOTE_EVERY_S:
                noted = time.monotonic()
                self._write()

        try:
            await self._round(self.last.after, report, self._settings.scrub_rate)
            self.last = replace(self.last, ended_at=self._now(), after="")
        finally:
            await self._record()

    async def _round(self, after: str, report: Callable[[Scrubbed], None], rate: int | None) -> Scrubbed:
        begun = time.monotonic()
        sizes = await asyncio.to_thread(lambda: dict(self._store.blobs))
        rest = sorted(digest for digest in sizes if digest.hex > after)
        pace = Pace(rate, Flag())
        step = Scrubbed(0, sum(sizes[digest] for digest in rest), 0)
        damaged = 0
        with ThreadPoolExecutor(1, thread_name_prefix="scrub") as threads:
            for digest in rest:
                try:
                    names = await self._check(digest, pace, threads)
                except StoreError as error:  # it is served to nobody; the others are to be looked at all the same
                    log.warning("damaged blob cannot be put aside", digest=str(digest), problem=str(error))
                    names = []
                step = Scrubbed(
                    step.done + sizes[digest],
                    step.total,
                    step.blobs + 1,
                    digest if names is not None else None,
                    tuple(names or ()),
                )
                damaged += names is not None
                self.last = replace(self.last, after=digest.hex)
                report(step)
        self._events.publish(ScrubEnded(step.blobs, step.done, damaged, time.monotonic() - begun))
        return step

    async def _check(self, digest: Digest, pace: Pace, threads: ThreadPoolExecutor) -> list[ModelName] | None:
        """Hash one blob; where it is not what its name says, put it aside and return the models that lack it now."""
        path = self._store.layout.blob(digest)  # not held open as readers do: the scrub must keep nothing from going
        try:
            got = await in_thread(threads, lambda: rehash(path, pace), pace.stop.set)
        except FileNotFoundError:
            return None  # dropped meanwhile
        except OSError as error:
            log.warning("blob cannot be read", digest=str(digest), problem=error.strerror or str(error))
            return await self._store.condemn(digest)
        return None if got is None or got == digest else await self._store.condemn(digest)

    def _due(self) -> bool:
        begun_at, now = self.last.begun_at, self._now()
        if begun_at is None or self.last.ended_at is None or begun_at > now:
            return True
        return now - begun_at >= timedelta(seconds=self._settings.scrub_interval)

    def _recorded(self) -> Pass:
        try:
            said = json.loads(self._path.read_bytes()) if self._path.is_file() else {}
            begun_at, ended_at = (
                datetime.fromisoformat(said[key]) if said[key] else None for key in ("begun_at", "ended_at")
            )
            if all(one is None or one.tzinfo for one in (begun_at, ended_at)):
                return Pass(begun_at, ended_at, str(said["after"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        return Pass()

    async def _record(self) -> None:
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        """Write down where we are; on a full disk that is forgotten."""
        last = self.last
        said = {
            "begun_at": last.begun_at and last.begun_at.isoformat(),
            "ended_at": last.ended_at and last.ended_at.isoformat(),
            "after": last.after,
        }
        with suppress(OSError):
            write_whole(self._path, json.dumps(said).encode(), self._store.layout.temporary / uuid4().hex)
