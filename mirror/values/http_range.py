"""The one place where HTTP's inclusive ranges exist (RFC 9110 §14)."""

import re

from mirror.values.invalid import InvalidRange
from mirror.values.ranges import ByteRange

_UNIT = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(.*)\Z", re.ASCII | re.DOTALL)
_ONE = re.compile(r"(\d{0,19})-(\d{0,19})\Z", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\Z", re.ASCII | re.IGNORECASE)


class RangeNotSatisfiable(InvalidRange):
    """A well-formed range of which the content has no byte (RFC 9110 §15.5.17)."""


def parse_range(header: str, size: int) -> ByteRange | None:
    """Return what a Range header asks of a content of ``size`` bytes, or None where it is to be ignored.

    Ignored, as RFC 9110 §14.2 allows, are other units than bytes and several ranges at once: the caller then
    answers with the whole content. A range that ends past the content is cut to it.

    Raises:
        InvalidRange: the header is no range at all.
        RangeNotSatisfiable: not one byte of it exists.
    """
    accepted = "bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT"
    unit = _UNIT.match(header)
    if unit is None:
        raise InvalidRange(header, accepted)
    if unit[1].lower() != "bytes" or "," in unit[2]:
        return None
    one = _ONE.match(unit[2].strip())
    if one is None or not (one[1] or one[2]):
        raise InvalidRange(header, accepted)
    if not one[1]:
        start, stop = max(0, size - int(one[2])), size
    else:
        start, stop = int(one[1]), int(one[2]) + 1 if one[2] else size
        if one[2] and int(one[2]) < start:
            raise InvalidRange(header, accepted)
    stop = min(stop, size)
    if start >= stop:
        raise RangeNotSatisfiable(header, f"a range within the {size} bytes there are")
    return ByteRange(start, stop)


def range_header(span: ByteRange) -> str:
    """Return the Range header value that asks for ``span``, which must not be empty."""
    return f"bytes={span.start}-{span.stop - 1}"


def content_range(span: ByteRange, size: int) -> str:
    """Return the Content-Range header value of a 206 answer holding ``span``."""
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def parse_content_range(header: str) -> tuple[ByteRange, int | None]:
    """Return the range and the whole size (None for ``*``) of a Content-Range header.

    Raises:
        InvalidRange: another form, or a range that is backwards or ends past the size (RFC 9110 §14.4).
    """
    match = _CONTENT_RANGE.match(header)
    if match is not None:
        first, last, size = int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])
        if first <= last and (size is None or last < size):
            return ByteRange(first, last + 1), size
    raise InvalidRange(header, "bytes FIRST-LAST/SIZE")
