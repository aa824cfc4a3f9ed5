"""Range and Content-Range: the one place where HTTP's inclusive ends are turned into ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.values import ByteRange, InvalidRange
from mirror.values.http_range import (
    RangeNotSatisfiable,
    content_range,
    parse_content_range,
    parse_range,
    range_header,
)

SIZES = st.integers(1, 10**12)


@st.composite
def within(draw: st.DrawFn) -> tuple[ByteRange, int]:
    """A range that is not empty, and the size of a content it is in."""
    size = draw(SIZES)
    start = draw(st.integers(0, size - 1))
    return ByteRange(start, draw(st.integers(start + 1, size))), size


@given(within())
def test_a_range_header_reads_back(case: tuple[ByteRange, int]) -> None:
    """What we ask an upstream for is what we would give."""
    span, size = case
    assert parse_range(range_header(span), size) == span


@given(within())
def test_a_content_range_reads_back(case: tuple[ByteRange, int]) -> None:
    """What we answer is what we would accept."""
    span, size = case
    assert parse_content_range(content_range(span, size)) == (span, size)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=0-99", ByteRange(0, 100)),
        ("bytes=99-", ByteRange(99, 100)),
        ("bytes=0-", ByteRange(0, 100)),
        ("bytes=10-1000", ByteRange(10, 100)),
        ("bytes=10-9223372036854775807", ByteRange(10, 100)),
        ("bytes=-1", ByteRange(99, 100)),
        ("bytes=-100", ByteRange(0, 100)),
        ("bytes=-101", ByteRange(0, 100)),
        ("Bytes=0-1", ByteRange(0, 2)),
        (" bytes = 0-1 ", ByteRange(0, 2)),
        ("bytes=007-008", ByteRange(7, 9)),
    ],
)
def test_a_range_is_cut_to_what_there_is(header: str, span: ByteRange) -> None:
    """RFC 9110 §14.1.2: a last position past the end means the end, a suffix longer than all means all."""
    assert parse_range(header, 100) == span


@pytest.mark.parametrize("header", ["items=0-1", "seconds=1-2", "bytes=0-1,3-4", "bytes=0-1, -5", "bytes=,"])
def test_other_units_and_several_ranges_are_ignored(header: str) -> None:
    """RFC 9110 §14.2 lets a server ignore them, and Ollama asks for neither."""
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=5000-", "bytes=-0"])
def test_a_range_without_one_byte_there_is_not_satisfiable(header: str) -> None:
    """The answer is then 416 and names the size, so that a client can mend its range."""
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 100)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_content_has_no_range(header: str) -> None:
    """There is no byte to send, so no 206 can be right."""
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 0)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=1- 2",
        "bytes=0x1-0x2",
        "bytes=1.0-2.0",
        "bytes=٣-٤",
        "bytes=1-2\0",
        "bytes:0-1",
        "=0-1",
        "0-1",
        "by tes=0-1",
        f"bytes={'9' * 20}-",
        f"bytes={'0' * 5000}-1",
    ],
)
def test_what_is_no_range_is_refused(header: str) -> None:
    """Guessing at what was meant would send the wrong bytes."""
    with pytest.raises(InvalidRange) as refused:
        parse_range(header, 100)
    assert not isinstance(refused.value, RangeNotSatisfiable)


@given(st.text("bytes=0123456789-, ", max_size=20), st.integers(0, 1000))
def test_whatever_is_asked_the_answer_lies_within(header: str, size: int) -> None:
    """No header may make us read before or past the content."""
    try:
        span = parse_range(header, size)
    except InvalidRange:
        return
    assert span is None or 0 <= span.start < span.stop <= size


def test_the_size_of_a_content_range_may_be_unknown() -> None:
    """RFC 9110 §14.4 allows an asterisk in its place."""
    assert parse_content_range("bytes 5-9/*") == (ByteRange(5, 10), None)


def test_the_unit_of_a_content_range_may_have_capitals() -> None:
    """RFC 9110 §14.1: unit names do not differ by letter case."""
    assert parse_content_range("Bytes 5-9/10") == (ByteRange(5, 10), 10)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes 5-9",
        "bytes 5-9/",
        "bytes 9-5/10",
        "bytes 5-9/9",
        "bytes 5-9/0",
        "bytes */10",
        "bytes -5/10",
        "bytes 5-/10",
        "bytes=5-9/10",
        "bytes  5-9/10",
        "bytes 5-9/10 ",
        "bytes 5-9/10\n",
        "items 5-9/10",
        "bytes ٣-٤/9",
        f"bytes 0-{'9' * 19}/*",
        f"bytes {'0' * 5000}-1/2",
    ],
)
def test_a_content_range_that_cannot_be_is_refused(header: str) -> None:
    """An upstream that sends one has sent bytes we cannot place."""
    with pytest.raises(InvalidRange):
        parse_content_range(header)
