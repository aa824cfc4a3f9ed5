"""How sizes, times and windows are written for people. Pure; it may touch nothing."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: float) -> str:
    """Write bytes as Ollama does: decimal units, two significant figures or three."""
    for unit in _UNITS[:-1]:
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def ago(instant: str | None, now: datetime | None = None) -> str:
    """Write an ISO instant as the time since; a dash for none."""
    if instant is None:
        return "-"
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(instant)).total_seconds()
    for length, word in ((86400 * 7, "week"), (86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return "just now"


def lasting(seconds: float) -> str:
    """Write how long something takes, in at most two units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" if whole >= 600 else f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def harmless(text: str) -> str:
    """Return the text with ? for what could move a cursor."""
    return "".join(one if one.isprintable() else "?" for one in text)


def when(view: Mapping[str, Any], now: datetime | None = None) -> str:
    """Say whether the queue of pulls is being worked off, or from when on it will be."""
    if view["paused"]:
        return "the queue is paused: mirror pulls resume begins jobs again"
    if view["open"]:
        return f"the window is open, until {_clock(view['closes_at'])}"
    if view["opens_at"] is None:
        return "no window ever opens (pulls.windows); mirror pulls now and run fetch at any hour"
    left = _left(view["opens_at"], now or datetime.now(UTC))
    return f"the next window opens {_clock(view['opens_at'])}, in {left}"


def _clock(instant: str) -> str:
    return f"{datetime.fromisoformat(instant).astimezone():%a %Y-%m-%d %H:%M %Z}"


def _left(instant: str, now: datetime) -> str:
    minutes = max(0, int((datetime.fromisoformat(instant) - now).total_seconds() // 60))
    days, hours = divmod(minutes // 60, 24)
    return (
        " ".join(f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes % 60, "min")) if count)
        or "a moment"
    )
