"""Time windows: what is read, when they are open, and what the two odd days of the year do to them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.values import InvalidWindow
from mirror.values.window import Schedule, parse_window

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)


def schedule(*texts: str, zone: ZoneInfo = BERLIN) -> Schedule:
    """Windows together."""
    return Schedule(tuple(map(parse_window, texts)), zone)


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    """An instant as clocks in ``zone`` show it."""
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def span_of(found: Schedule, instant: datetime, zone: ZoneInfo = BERLIN) -> tuple[str, str] | None:
    """The span that is open, as clocks show it."""
    span = found.now(instant)
    return (f"{span.start.astimezone(zone):%a %d %H:%M}", f"{span.end.astimezone(zone):%a %d %H:%M}") if span else None


@pytest.mark.parametrize(
    ("texts", "instant", "open_"),
    [
        (["22:00-06:00"], "2026-11-21T21:59:59", None),
        (["22:00-06:00"], "2026-11-21T22:00", ("Sat 21 22:00", "Sun 22 06:00")),
        (["22:00-06:00"], "2026-11-22T05:59:59", ("Sat 21 22:00", "Sun 22 06:00")),
        (["22:00-06:00"], "2026-11-22T06:00", None),
        (["Mon-Fri 22:00-06:00"], "2026-11-21T05:00", ("Fri 20 22:00", "Sat 21 06:00")),
        (["Mon-Fri 22:00-06:00"], "2026-11-21T23:00", None),
        (["fri-mon 9:00-10:00"], "2026-11-23T09:30", ("Mon 23 09:00", "Mon 23 10:00")),
        (["Sat,Sun 00:00-24:00"], "2026-11-22T12:00", ("Sat 21 00:00", "Mon 23 00:00")),
        (["20:00-23:00", "22:00-02:00", "02:00-03:00"], "2026-11-21T22:30", ("Sat 21 20:00", "Sun 22 03:00")),
        (["22:00-06:00 Asia/Tokyo"], "2026-11-21T14:00", ("Sat 21 14:00", "Sat 21 22:00")),
        (["0 22 * * 1-5 for 8h30m"], "2026-11-21T06:29", ("Fri 20 22:00", "Sat 21 06:30")),
        (["30 3 1 * * for 2h Asia/Tokyo"], "2026-11-30T20:00", ("Mon 30 19:30", "Mon 30 21:30")),
        ([], "2026-11-21T22:00", None),
    ],
)
def test_when_it_is_open(texts: list[str], instant: str, open_: tuple[str, str] | None) -> None:
    """The start belongs to it, the end does not; what touches is one."""
    assert span_of(schedule(*texts), at(instant)) == open_


@pytest.mark.parametrize(
    ("texts", "instant", "opens"),
    [
        (["22:00-06:00"], "2026-11-21T12:00", "Sat 21 22:00"),
        (["22:00-06:00"], "2026-11-21T22:00", "Sun 22 22:00"),
        (["Sat 04:00-12:00"], "2026-11-21T12:00", "Sat 28 04:00"),
        (["0 4 1 1 * for 1h"], "2026-01-01T05:00", "Fri 01 04:00"),
    ],
)
def test_when_it_opens_next(texts: list[str], instant: str, opens: str) -> None:
    """As a status line says it; yearly ones too."""
    found = schedule(*texts).next(at(instant))
    assert found is not None
    assert f"{found.start.astimezone(BERLIN):%a %d %H:%M}" == opens
    assert schedule().next(at(instant)) is None


@pytest.mark.parametrize(
    ("text", "start", "hours"),
    [
        ("22:00-06:00", "2026-03-28T21:00", 7),
        ("22:00-06:00", "2026-10-24T20:00", 9),
        ("02:30-04:00", "2026-03-29T01:00", 1),
        ("01:00-02:30", "2026-03-29T00:00", 1),
        ("03:00-04:00", "2026-03-29T01:00", 1),
        ("02:30-04:00", "2026-10-25T00:30", 2.5),
        ("01:00-02:30", "2026-10-24T23:00", 1.5),
        ("0 22 * * * for 8h", "2026-03-28T21:00", 8),
    ],
)
def test_the_days_on_which_clocks_are_moved(text: str, start: str, hours: float) -> None:
    """Clocks in Berlin skip an hour at 02:00 and show one twice: the window follows what they show."""
    opens = datetime.fromisoformat(start).replace(tzinfo=UTC)
    found = schedule(text).next(opens - 12 * HOUR)
    assert found is not None
    assert (found.start, found.end) == (opens, opens + hours * HOUR)


def test_a_window_that_is_skipped_does_not_open() -> None:
    """On that day clocks never show it."""
    found = schedule("02:10-02:50").next(at("2026-03-28T12:00"))
    assert found is not None
    assert found.start == datetime(2026, 3, 30, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("", "22:00", "22-06", "25:00-06:00", "22:60-06:00", "24:00-06:00", "00:00-24:01", "xyz 22:00-06:00"),
        *("Mon- 22:00-06:00", "22:00-06:00 Mars/Olympus", "22:00-06:00 ../../etc/passwd", "22:00-06:00 x y"),
        *("* * * * *", "61 * * * * for 1h", "0 22 * * * for 0h", "0 22 * * * for 999h", "0 22 * * * for 8"),
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    """A night that never comes is found out after many days."""
    with pytest.raises(InvalidWindow, match="22:00-06:00"):
        parse_window(text)


def test_one_that_never_closes_costs_little_and_is_open() -> None:
    """For those who want pulls at any hour."""
    for text in ("00:00-24:00", "* * * * * for 1m", "*/5 * * * * for 2h"):
        found = schedule(text).now(at("2026-11-21T12:00:30"))
        assert found is not None
        assert found.end > at("2026-11-30T00:00")


@given(
    st.integers(0, 1439),
    st.integers(0, 1440),
    st.sets(st.integers(0, 6), min_size=1),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001  # hypothesis wants them naive
)
def test_open_is_what_the_clock_says(start: int, end: int, days: set[int], when: datetime) -> None:
    """In a zone that moves no clocks, against the plain arithmetic."""
    names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    text = f"{','.join(names[day] for day in days)} {start // 60}:{start % 60:02}-{end // 60}:{end % 60:02}"
    minute = when.hour * 60 + when.minute
    today, yesterday = when.weekday() in days, (when.weekday() - 1) % 7 in days
    open_ = (
        (today and start <= minute < end)
        if end > start
        else (today and minute >= start) or (yesterday and minute < end)
    )

    found = schedule(text, zone=ZoneInfo("UTC"))
    instant = when.replace(tzinfo=UTC)
    now, then = found.now(instant), found.next(instant)
    assert (now is not None) == open_
    assert now is None or instant in now
    assert then is None or then.start > instant
