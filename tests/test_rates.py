"""Rates by the time of day: what is read, which one holds when, and until when it does."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config import Settings, load
from mirror.config.rates import parse_rates, render_rates
from mirror.errors import SettingsError
from mirror.values.rates import Rates

BERLIN, HERE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
OFFICE = ["20MB/s", "5MB/s Mon-Fri 08:00-18:00", "none 22:00-06:00"]
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

minutes = st.integers(0, 1439)
hours = st.tuples(minutes, minutes).filter(lambda pair: pair[0] != pair[1])
days = st.sets(st.integers(0, 6), min_size=1)
entries = st.lists(st.tuples(st.one_of(st.none(), st.integers(1, 10**9)), days, hours), max_size=4)
instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis adds the zone
Entry = tuple[int | None, set[int], tuple[int, int]]


def written(entry: Entry) -> str:
    """An entry as one writes it."""
    rate, on, (start, end) = entry
    said = "none" if rate is None else f"{rate}B/s"
    shown = ",".join(DAYS[day] for day in sorted(on))
    return f"{said} {shown} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"


def is_open(entry: Entry, instant: datetime) -> bool:
    """Whether the window of an entry is open, counted without the code under test."""
    _, on, (start, end) = entry
    minute = instant.hour * 60 + instant.minute
    if start < end:
        return instant.weekday() in on and start <= minute < end
    return (instant.weekday() in on and minute >= start) or ((instant.weekday() - 1) % 7 in on and minute < end)


@pytest.mark.parametrize(
    ("after", "rate"),
    [
        ({}, None),
        ({"hours": 5, "minutes": 59}, None),
        ({"hours": 6}, 20_000_000),
        ({"hours": 8}, 5_000_000),
        ({"hours": 17, "minutes": 59}, 5_000_000),
        ({"hours": 18}, 20_000_000),
        ({"hours": 22}, None),
        ({"days": 5, "hours": 12}, 20_000_000),
    ],
)
def test_an_office(after: dict[str, float], rate: int | None) -> None:
    """Little while people work, all of it at night, and 20 MB/s else."""
    assert parse_rates(OFFICE).at(MONDAY + timedelta(**after), HERE) == rate


def test_the_first_listed_counts() -> None:
    """However the others overlap with it, and wherever the default stands."""
    rates = parse_rates(["1MB/s 12:00-13:00", "9MB/s", "2MB/s 00:00-24:00", "3MB/s 12:00-14:00"])

    assert rates.at(MONDAY + timedelta(hours=12.5), HERE) == 1_000_000
    assert rates.at(MONDAY + timedelta(hours=13.5), HERE) == 2_000_000


@pytest.mark.parametrize(
    ("text", "utc", "rate"),
    [
        ("5MB/s 08:00-18:00", "2026-07-01T06:30", 5_000_000),
        ("5MB/s 08:00-18:00", "2026-12-01T06:30", None),
        ("5MB/s 08:00-18:00 Asia/Tokyo", "2026-12-01T00:00", 5_000_000),
        ("5MB/s 02:30-04:00", "2026-03-29T00:59", None),
        ("5MB/s 02:30-04:00", "2026-03-29T01:00", 5_000_000),
        ("5MB/s 02:30-04:00", "2026-03-29T02:00", None),
        ("20 MB/s 0 22 * * 1-5 for 8h", "2026-11-16T22:00", 20_000_000),
        ("2000000 0 22 * * 1-5 for 8h", "2026-11-16T22:00", 2_000_000),
    ],
)
def test_windows_are_those_of_clocks(text: str, utc: str, rate: int | None) -> None:
    """In summer and winter, on the day an hour is skipped, and in zones of their own."""
    assert parse_rates([text]).at(datetime.fromisoformat(utc).replace(tzinfo=UTC), BERLIN) == rate


def test_one_rate_never_changes() -> None:
    """And needs no waking."""
    for rates in (parse_rates("20MB/s"), parse_rates("none"), Rates()):
        assert rates.next_change(MONDAY, HERE) is None
    assert parse_rates("20MB/s").at(MONDAY, HERE) == 20_000_000
    assert parse_rates("none") == Rates()


@given(entries, st.one_of(st.none(), st.integers(1, 10**9)), instants)
def test_it_is_the_first_whose_window_is_open_else_the_default(
    some: list[Entry], default: int | None, instant: datetime
) -> None:
    """As one who reads the list would say."""
    said = [*(written(one) for one in some), "none" if default is None else f"{default}B/s"]
    right = next((one[0] for one in some if is_open(one, instant)), default)

    assert parse_rates(said).at(instant, HERE) == right


@given(entries.filter(bool), instants, st.floats(0, 1, exclude_max=True))
def test_it_stays_until_the_next_change(some: list[Entry], instant: datetime, part: float) -> None:
    """Whoever sleeps until then misses nothing; the edge lies ahead, so that nobody wakes for ever."""
    rates = parse_rates([written(one) for one in some])
    edge = rates.next_change(instant, BERLIN)
    assert edge is not None
    assert edge > instant

    before = min(instant + (edge - instant) * part, edge - timedelta(microseconds=1))  # the product may round up
    assert rates.at(before, BERLIN) == rates.at(instant, BERLIN)


@given(entries.filter(bool), instants)
def test_an_edge_is_where_a_window_opens_or_closes(some: list[Entry], instant: datetime) -> None:
    """None is left out: no later instant is returned while an earlier one changes something."""
    begun = instant.replace(second=0, microsecond=0)
    day = [begun + timedelta(minutes=count) for count in range(1, 24 * 60)]
    now_open = [is_open(one, instant) for one in some]
    edge = next((minute for minute in day if [is_open(one, minute) for one in some] != now_open), None)
    found = parse_rates([written(one) for one in some]).next_change(instant, HERE)

    assert found is not None
    assert found == edge if edge is not None else found > day[-1]


@given(entries, st.one_of(st.none(), st.integers(1, 10**9)))
def test_what_is_rendered_reads_back(some: list[Entry], default: int | None) -> None:
    """So that a shown setting can be copied."""
    rates = parse_rates([*(written(one) for one in some), "none" if default is None else f"{default}B/s"])

    assert parse_rates(render_rates(rates)) == rates


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fast", "must be a rate such as 20MB/s"),
        ("0", "must be greater than 0; none is no limit"),
        ("-5", "must be a rate such as 20MB/s"),
        ("5Mb/s", "must be a rate such as 20MB/s"),
        ("5MB/s at noon", "must have, after the rate, a time of day such as 22:00-06:00"),
        ("5MB/s Mon-Fri", "must have, after the rate, a time of day such as 22:00-06:00"),
        ("5MB/s 08:00-08:00", "must have a window that ends at another time than it begins"),
        ("5MB/s 00:00-0:00", "must have a window that ends at another time than it begins"),
        ("5MB/s 0 8 * * * for 0h", "must have, after the rate, a time of day"),
        ("5MB/s, 20MB/s", "must not have more than one rate without a window"),
        ("none, 20MB/s", "must not have more than one rate without a window"),
        ("20MB/s, 0 08:00-18:00", "entry 2 must be greater than 0"),
        ("20MB/s, 08:00-18:00", "entry 2 must be a rate such as 20MB/s"),
        ("[]", "must be a rate such as 20MB/s, or some with windows"),
        ("[[]]", "must be a rate such as 20MB/s"),
        ("[true]", "must be a rate such as 20MB/s"),
    ],
)
@pytest.mark.parametrize("key", ["upstream.rate", "pulls.rate"])
def test_nonsense_is_refused_by_its_key(key: str, text: str, said: str) -> None:
    """With what is accepted, and where it was set."""
    variable = f"OLLAMA_MIRROR_{key.replace('.', '_').upper()}"
    with pytest.raises(SettingsError) as refused:
        load(None, {variable: text}, {})

    assert str(refused.value).startswith(f"{key}: {said}")
    assert refused.value.origin == f"environment {variable}"


def test_a_further_upstream_has_rates_too() -> None:
    """As a list within its group, or as one text with commas."""
    said = [{"name": "huggingface", "rate": OFFICE}, {"name": "lan", "url": "http://lan", "hosts": ["lan"]}]
    one, other = Settings.model_validate({"upstreams": said}).upstreams

    assert one.rate == parse_rates(OFFICE)
    assert other.rate is None
    again = Settings.model_validate({"upstreams": [{"name": "huggingface", "rate": ", ".join(OFFICE)}]})
    assert again.upstreams[0].rate == one.rate
