"""Times of the week in which something is done, such as the nights: read from text, asked about instants. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from heapq import merge
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from mirror.values.invalid import InvalidWindow

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)
_MIDNIGHT = 1440
_FAR, _NEVER_CLOSES = 370 * _DAY, 30 * _DAY
_HOURS = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:-[a-z]{3})?(?:,[a-z]{3}(?:-[a-z]{3})?)*)\s+)?"
    r"(?P<start>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})(?:\s+(?P<zone>\S+))?",
    re.IGNORECASE | re.ASCII,
)
_CRON = re.compile(
    r"(?P<expression>\S+ \S+ \S+ \S+ \S+) for (?:(?P<hours>\d{1,3})h)?(?:(?P<minutes>\d{1,4})m)?(?: (?P<zone>\S+))?",
    re.IGNORECASE | re.ASCII,
)
_ACCEPTED = (
    "a time of day such as 22:00-06:00, with days before it (Mon-Fri 22:00-06:00; Sat,Sun 00:00-24:00) "
    "and a time zone after it (22:00-06:00 Europe/Berlin) if need be; "
    "or a time of cron's and a length (0 22 * * 1-5 for 8h)"
)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time: aware UTC instants, the end not in it."""

    start: datetime
    end: datetime

    def __contains__(self, instant: object) -> bool:
        return isinstance(instant, datetime) and self.start <= instant < self.end


class Window(Protocol):
    """Opens now and then for a while."""

    def spans(self, after: datetime, zone: ZoneInfo) -> Iterator[Span]:
        """Yield when it is open, in order and without end, from at least a week before ``after``, an aware instant.

        ``zone`` is for a window that names none.
        """


@dataclass(frozen=True, slots=True)
class Hours:
    """Opens on each of ``days`` (0 is Monday) when clocks first show ``start``, closes when they first show ``end``.

    An end that is not after the start is on the next day. Minutes count from midnight, 1440 being the next. Where
    clocks skip ``start`` it opens at the skip.
    """

    text: str
    days: frozenset[int]
    start: int
    end: int
    zone: str | None

    def spans(self, after: datetime, zone: ZoneInfo) -> Iterator[Span]:
        """Yield when it is open; see Window."""
        own = _zone(self.zone) if self.zone is not None else zone
        day = (after - 8 * _DAY).astimezone(own).date()
        while True:
            if day.weekday() in self.days:
                span = Span(_shown_first(day, self.start, own), _shown_first(day, self.end, own))
                if span.start < span.end:
                    yield span
            day += _DAY

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Cron:
    """Opens when cron would start a job, for ``length``."""

    text: str
    expression: str
    length: timedelta
    zone: str | None

    def spans(self, after: datetime, zone: ZoneInfo) -> Iterator[Span]:
        """Yield when it is open; see Window."""
        own = _zone(self.zone) if self.zone is not None else zone
        begun = (after - 8 * _DAY).astimezone(own)
        for start in CronSim(self.expression, begun):
            yield Span(start.astimezone(UTC), start.astimezone(UTC) + self.length)

    def __str__(self) -> str:
        return self.text


def parse_window(text: str) -> Window:
    """Read a window of either kind. Raises InvalidWindow."""
    text = " ".join(text.split())
    found = _hours(text) or _cron(text)
    if found is None:
        raise InvalidWindow(text, _ACCEPTED)
    return found


@dataclass(frozen=True, slots=True)
class Schedule:
    """Windows together: open when one of them is. Without any it is never open."""

    windows: tuple[Window, ...]
    zone: ZoneInfo

    def now(self, instant: datetime) -> Span | None:
        """Return the span that is open at an aware instant, windows that touch or overlap taken as one.

        The end of one that never closes is some weeks away.
        """
        for span in self._joined(instant):
            if instant in span:
                return span
            if span.start > instant:
                return None
        return None

    def next(self, instant: datetime) -> Span | None:
        """Return the span that opens next after an aware instant; None where none does within a year."""
        return next((span for span in self._joined(instant) if span.start > instant), None)

    def _joined(self, instant: datetime) -> Iterator[Span]:
        """Yield the spans of all windows in order and joined, from before ``instant``."""
        current: Span | None = None
        every = merge(*(window.spans(instant, self.zone) for window in self.windows), key=lambda span: span.start)
        for span in every:
            if span.start > instant + _FAR:
                break
            if current is None or span.start > current.end:
                if current is not None:
                    yield current
                current = span
                continue
            current = Span(current.start, max(current.end, span.end))
            if current.end > instant + _NEVER_CLOSES:
                break
        if current is not None:
            yield current


def _hours(text: str) -> Hours | None:
    match = _HOURS.fullmatch(text)
    if match is None:
        return None
    start, end = _minutes(match["start"]), _minutes(match["end"])
    days = _days(match["days"]) if match["days"] else frozenset(range(7))
    if start is None or end is None or start == _MIDNIGHT or days is None or not _is_zone(match["zone"]):
        return None
    return Hours(text, days, start, end if end > start else end + _MIDNIGHT, match["zone"])


def _cron(text: str) -> Cron | None:
    match = _CRON.fullmatch(text)
    if match is None or not _is_zone(match["zone"]):
        return None
    length = timedelta(hours=int(match["hours"] or 0), minutes=int(match["minutes"] or 0))
    try:
        CronSim(match["expression"], datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError:
        return None
    return Cron(text, match["expression"], length, match["zone"]) if timedelta(0) < length <= 7 * _DAY else None


def _shown_first(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """Return the first instant (UTC) at which clocks show that many minutes of ``day``, or more where they skip it."""
    wall = datetime.combine(day, time()) + timedelta(minutes=minutes)
    found = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == wall:
        return found
    # Clocks skip it. The offset after the skip gives an instant before it, that before the skip one after it.
    low, high = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), found
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        shown = middle.astimezone(zone).replace(tzinfo=None)
        low, high = (low, middle) if shown >= wall else (middle, high)
    return high.replace(microsecond=0) + timedelta(seconds=round(high.microsecond / 1_000_000))


def _minutes(text: str) -> int | None:
    hours, _, minutes = text.partition(":")
    found = int(hours) * 60 + int(minutes)
    return found if int(minutes) < 60 and found <= _MIDNIGHT else None


def _days(text: str) -> frozenset[int] | None:
    found: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            return None
        start, end = _DAYS.index(first), _DAYS.index(last or first)
        found |= {day % 7 for day in range(start, end + 1 if end >= start else end + 8)}
    return frozenset(found)


def _is_zone(name: str | None) -> bool:
    if name is None:
        return True
    try:
        _zone(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return False
    return True


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
