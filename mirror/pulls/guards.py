"""What keeps the queue from taking or beginning too much: so many a day for each client, so much of the disk."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

from mirror.config import PullSettings
from mirror.errors import AskedTooOften, StoreFull
from mirror.pulls.queue import Queue


class Disk(Protocol):
    """A disk, in bytes: that of the store, or another that is watched in its place."""

    def capacity(self) -> int:
        """Return how large it is."""

    def free(self) -> int:
        """Return how much of it is left."""


@dataclass(frozen=True, slots=True)
class DiskOf:
    """The disk that a path lies on. Raises StoreFull where it cannot be asked."""

    path: Path

    def capacity(self) -> int:
        """Return how large it is."""
        found = self._asked()
        return found.f_blocks * found.f_frsize

    def free(self) -> int:
        """Return how much of it is left for us."""
        found = self._asked()
        return found.f_bavail * found.f_frsize

    def _asked(self) -> os.statvfs_result:
        try:
            return os.statvfs(self.path)
        except OSError as error:
            said = f"the disk of {self.path} (pulls.disk_path) cannot be looked at: {error.strerror}"
            raise StoreFull(said) from error


@dataclass(frozen=True, slots=True)
class Guards:
    """Says no. ``zone`` is where a day begins."""

    settings: PullSettings
    disk: Disk
    zone: ZoneInfo

    @property
    def used(self) -> float:
        """How much of the disk is used, in percent."""
        capacity = self.disk.capacity()
        return 100.0 * (capacity - self.disk.free()) / capacity if capacity else 0.0

    def room(self) -> None:
        """Raise StoreFull where the disk is too full for more."""
        most = self.settings.disk_threshold
        if self.used > most.percent:
            raise StoreFull(f"the disk is {self.used:.0f}% full, and pulls.disk_threshold is {most}: make room first")

    async def day(self, queue: Queue, who: str, now: datetime) -> None:
        """Raise AskedTooOften where ``who`` has asked for as many models as may be since midnight."""
        most = self.settings.daily_limit
        midnight = now.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        if most and await queue.asked_since(who, midnight) >= most:
            raise AskedTooOften(
                f"{who} has asked for {most} models today, which is all (pulls.daily_limit); try tomorrow"
            )
