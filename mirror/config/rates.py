"""Rates by the time of day as people write them, and back: ``20MB/s``, ``5MB/s Mon-Fri 08:00-18:00``, ``none``."""

import re
from typing import TYPE_CHECKING

from mirror.config.units import parse_rate, render_rate
from mirror.values import InvalidWindow
from mirror.values.rates import Rates, TimedRate

if TYPE_CHECKING:
    from mirror.values.window import Window

_NONE = "none"
_ENTRY = re.compile(
    r"(?P<rate>none|[0-9.]+\s*(?:[kmgtp]?i?b)?(?:/s)?)(?:\s+(?P<window>.+))?", re.IGNORECASE | re.ASCII | re.DOTALL
)
_DAY_MINUTES = 1440


def parse_rates(value: object) -> Rates:
    """Return what one rate, or a list of rates with windows, stands for.

    Raises ValueError for what is no rate or no window, an empty list, two rates without a window, and hours that end
    when they begin.
    """
    if isinstance(value, Rates):
        return value
    entries = value if isinstance(value, list | tuple) else [value]
    plain: list[int | None] = []
    timed: list[TimedRate] = []
    for number, entry in enumerate(entries, 1):
        try:
            rate, window = _entry(entry)
        except ValueError as error:
            raise ValueError(f"entry {number} {error}" if len(entries) > 1 else str(error)) from error
        if window is None:
            plain.append(rate)
        else:
            timed.append(TimedRate(rate, window))
    if not entries:
        raise ValueError("must be a rate such as 20MB/s, or some with windows; none is no limit")
    if len(plain) > 1:
        raise ValueError("must not have more than one rate without a window")
    return Rates(plain[0] if plain else None, tuple(timed))


def render_rates(rates: Rates) -> str | list[str]:
    """Return the text, or the list of them where there are windows, from which ``parse_rates`` reads ``rates``."""
    default = [_shown(rates.default)] if rates.default is not None or not rates.timed else []
    texts = [*default, *(f"{_shown(one.rate)} {one.window}" for one in rates.timed)]
    return texts if rates.timed else texts[0]


def _entry(value: object) -> tuple[int | None, "Window | None"]:
    match = _ENTRY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return _rate(value), None
    return _rate(match["rate"]), _window(match["window"]) if match["window"] else None


def _rate(value: object) -> int | None:
    if isinstance(value, str) and value.lower() == _NONE:
        return None
    if (rate := parse_rate(value)) == 0:
        raise ValueError("must be greater than 0; none is no limit")
    return rate


def _window(text: str) -> "Window":
    from mirror.values.window import Hours, parse_window  # settings without windows need not load cron

    try:
        window = parse_window(text)
    except InvalidWindow as error:
        raise ValueError(f"must have, after the rate, {error.accepted}") from error
    # For a queue 22:00-22:00 may be a whole day; of a rate nobody could say which was meant.
    if isinstance(window, Hours) and window.end - window.start == _DAY_MINUTES and "24:00" not in text:
        raise ValueError("must have a window that ends at another time than it begins; a whole day is 00:00-24:00")
    return window


def _shown(rate: int | None) -> str:
    return _NONE if rate is None else render_rate(rate)
