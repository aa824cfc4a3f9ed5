"""Durations, sizes, rates and shares: what is read, what is refused, and that reading undoes rendering."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config import (
    Share,
    parse_duration,
    parse_rate,
    parse_size,
    render_duration,
    render_rate,
    render_size,
)
from mirror.config.units import parse_count, parse_size_or_share, render_count, render_size_or_share

NOT_UNITS = ["", " ", "-1", "-5s", "nan", "inf", "-inf", "1e3", "ten", "1 2", "1/2", "٣s", "0x10", "1" * 5000]
NOT_NUMBERS: list[object] = [-1, -0.5, math.nan, math.inf, -math.inf, True, False, None, [], {}]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("30d", 2_592_000),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("1d 2h 3m 4s 5ms", 93_784.005),
        ("250ms", 0.25),
        ("1.5h", 5400),
        (" 7 d ", 604_800),
        ("90", 90),
        ("0", 0),
        ("0s", 0),
        (90, 90),
        (0.25, 0.25),
        (1e-7, 1e-7),
    ],
)
def test_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    """A bare number is seconds, as in the older programs' settings."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", [*NOT_UNITS, *NOT_NUMBERS, "5M", "30m1h", "1h1h", "5y", "s", "36501d", 1e300, 10**30])
def test_duration_refuses_what_it_does_not_understand(value: object) -> None:
    """A timer of a negative, endless or guessed length would do harm later, far from its cause."""
    with pytest.raises(ValueError, match=r"must be a length of time such as 250ms, 30s, 1h30m or 7d"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (30, "30s"),
        (5400, "1h30m"),
        (604_800, "7d"),
        (0.25, "250ms"),
        (90.5, "1m30s500ms"),
        (1e-7, "0.0000001s"),
    ],
)
def test_duration_is_rendered_as_people_write_it(seconds: float, text: str) -> None:
    """`config show` prints what one would type."""
    assert render_duration(seconds) == text


@given(st.floats(min_value=0, max_value=36_500 * 86_400))
def test_rendered_duration_reads_back(seconds: float) -> None:
    """Exactly, so that a shown setting can be copied."""
    assert parse_duration(render_duration(seconds)) == seconds


@given(st.integers(0, 10**5), st.sampled_from(["ms", "s", "m", "h"]))
def test_whole_units_render_without_loss(count: int, unit: str) -> None:
    """Whole milliseconds need no decimal point."""
    rendered = render_duration(parse_duration(f"{count}{unit}"))

    assert "." not in rendered
    assert parse_duration(rendered) == parse_duration(f"{count}{unit}")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100GB", 100 * 1000**3),
        ("100GiB", 100 * 1024**3),
        ("100 gb", 100 * 1000**3),
        ("1.5kB", 1500),
        ("1.5KB", 1500),
        ("2mib", 2 << 20),
        ("3TB", 3 * 1000**4),
        ("1PiB", 1 << 50),
        ("7B", 7),
        ("7", 7),
        ("0.0001KB", 0),
        (7, 7),
        (7.0, 7),
    ],
)
def test_size_is_read_in_bytes(text: object, size: int) -> None:
    """GB is 1000-based and GiB 1024-based, as disks and memory are sold."""
    assert parse_size(text) == size


@pytest.mark.parametrize("value", [*NOT_UNITS, *NOT_NUMBERS, "1G", "1Gb", "1Gib", "GB", "1EB", "1GB/s", "9300PB"])
def test_size_refuses_what_it_does_not_understand(value: object) -> None:
    """Gb means bits, and G alone could be either base."""
    with pytest.raises(ValueError, match=r"must be a size such as 100GB \(1000-based\) or 100GiB"):
        parse_size(value)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1, "1B"), (1500, "1500B"), (10_000_000, "10MB"), (100 << 30, "100GiB"), (1_500_000_000, "1500MB")],
)
def test_size_is_rendered_exactly(size: int, text: str) -> None:
    """No rounding: a limit shown is the limit."""
    assert render_size(size) == text


@given(st.integers(0, (1 << 63) - 1))
def test_rendered_size_and_rate_read_back(count: int) -> None:
    """Exactly, so that a shown setting can be copied."""
    assert parse_size(render_size(count)) == count
    assert parse_rate(render_rate(count)) == count


@pytest.mark.parametrize(("text", "rate"), [("20MB/s", 20_000_000), ("1 MiB/s", 1 << 20), ("5kB", 5000), (5, 5)])
def test_rate_is_read_in_bytes_per_second(text: object, rate: int) -> None:
    """`/s` may be left out."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("value", [*NOT_UNITS, *NOT_NUMBERS, "20Mb/s", "20MB/h", "20Mbit/s", "/s"])
def test_rate_refuses_what_it_does_not_understand(value: object) -> None:
    """Bits and hours among it."""
    with pytest.raises(ValueError, match="must be a rate such as 20MB/s"):
        parse_rate(value)


@pytest.mark.parametrize("text", ["", "5", "101%", "-1%", "%", "nan%", "100.5%"])
def test_share_refuses_what_is_no_share(text: str) -> None:
    """More than the whole disk cannot stay free."""
    with pytest.raises(ValueError, match="must be a share from 0% to 100%"):
        Share.parse(text)


@given(st.floats(0, 100))
def test_share_reads_its_own_text(percent: float) -> None:
    """parse and str are inverse."""
    assert Share.parse(str(Share(percent))) == Share(percent)


@given(st.one_of(st.integers(0, (1 << 63) - 1), st.floats(0, 100).map(Share)))
def test_size_or_share_reads_back(value: int | Share) -> None:
    """Both kinds keep apart in text."""
    assert parse_size_or_share(render_size_or_share(value)) == value
    assert parse_size_or_share(value) == value


@pytest.mark.parametrize(
    ("text", "count"), [("7B", 7 * 10**9), ("8.0b", 8 * 10**9), ("494.03M", 494_030_000), ("1T", 10**12), (5, 5)]
)
def test_count_is_read_as_models_say_it(text: object, count: int) -> None:
    """As config blobs have it in model_type."""
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "B", "-1B", "7G", "7 billion", "1e9", None, True])
def test_count_refuses_what_it_does_not_understand(text: object) -> None:
    """A rule that means nothing would let everything by."""
    with pytest.raises(ValueError, match="number of parameters"):
        parse_count(text)


@given(st.integers(0, 10**15))
def test_rendered_count_reads_back(count: int) -> None:
    """What is shown can be set."""
    assert parse_count(render_count(count)) == count
