"""Byte rates by the time of day: one that holds as a rule, and others while their windows are open. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:  # who has no windows need not load cron
    from mirror.values.window import Schedule, Window


@dataclass(frozen=True, slots=True)
class TimedRate:
    """A rate while a window is open: bytes per second, None for no limit."""

    rate: int | None
    window: "Window"


@dataclass(frozen=True, slots=True)
class Rates:
    """How many bytes per second may come, None for no limit.

    Of the windows of ``timed`` that are open the first listed counts; where none is, it is ``default``.
    """

    default: int | None = None
    timed: tuple[TimedRate, ...] = ()

    def at(self, instant: datetime, zone: ZoneInfo) -> int | None:
        """Return the rate at an aware instant; ``zone`` is for windows that name none."""
        for one, schedule in self._schedules(zone):
            if schedule.now(instant) is not None:
                return one.rate
        return self.default

    def next_change(self, instant: datetime, zone: ZoneInfo) -> datetime | None:
        """Return when the rate may become another: it stays as it is from an aware instant until then.

        That is when a window opens or closes next. None where none does within a year.
        """
        edges = []
        for _, schedule in self._schedules(zone):
            open_ = schedule.now(instant)
            following = schedule.next(instant) if open_ is None else None
            edges += [open_.end] if open_ is not None else [following.start] if following is not None else []
        return min(edges, default=None)

    def _schedules(self, zone: ZoneInfo) -> Iterator[tuple[TimedRate, "Schedule"]]:
        if self.timed:
            from mirror.values.window import Schedule

            for one in self.timed:
                yield one, Schedule((one.window,), zone)
