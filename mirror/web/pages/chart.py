"""Bars by day, as the numbers of an SVG. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

HEIGHT, BAR, GAP = 120, 16, 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One day: ``x``, and from the top ``y`` and ``height`` of what was fetched below what was saved."""

    day: date
    x: int
    fetched: int
    saved: int
    fetched_y: float
    fetched_height: float
    saved_y: float
    saved_height: float


def bars(days: Sequence[tuple[date, int, int]]) -> list[Bar]:
    """Return a bar for each day with its bytes fetched and saved; the highest fills ``HEIGHT``."""
    most = max((fetched + saved for _, fetched, saved in days), default=0) or 1
    found = []
    for place, (day, fetched, saved) in enumerate(days):
        low, high = HEIGHT * fetched / most, HEIGHT * saved / most
        found.append(
            Bar(
                day=day,
                x=place * (BAR + GAP),
                fetched=fetched,
                saved=saved,
                fetched_y=round(HEIGHT - low, 1),
                fetched_height=round(low, 1),
                saved_y=round(HEIGHT - low - high, 1),
                saved_height=round(high, 1),
            )
        )
    return found
