"""What keeps the queue from taking or beginning too much: so many a day for each client, so much of the disk."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from mirror.config import PullSettings
from mirror.errors import AskedTooOften, StoreFull
from mirror.pulls.queue import Queue


class Disk(Protocol):
    """The disk of the store, in bytes."""

    def capacity(self) -> int:
        """Return how large it is."""

    def free(self) -> int:
        """Return how much of it is left."""


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
