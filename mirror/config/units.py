"""Durations, sizes, rates and shares as people write them, and back; reading what was rendered gives the same value."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Self

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_NUMBER = r"\d{1,20}(?:\.\d{1,400})?"
_SECONDS = {
    "w": Fraction(604_800),
    "d": Fraction(86_400),
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
}
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{unit}\s*)?" for unit in _SECONDS), re.ASCII)
_LONGEST = 36_500 * _SECONDS["d"]

_PREFIXES = "KMGTP"
_BYTES = {"B": 1} | {f"{p}B": 1000**n for n, p in enumerate(_PREFIXES, 1)}
_BYTES |= {f"{p}iB": 1024**n for n, p in enumerate(_PREFIXES, 1)}
# A capital prefix with a small b (Gb) stays refused: it means bits.
_SPELLINGS = _BYTES | {name.lower(): count for name, count in _BYTES.items()} | {"": 1, "kB": 1000}
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]{{0,3}})", re.ASCII)
_LARGEST = (1 << 63) - 1

_COUNTS: Mapping[str, int] = {"": 1} | {unit: 1000**power for power, unit in enumerate("KMBT", 1)}

_A_DURATION = "must be a length of time such as 250ms, 30s, 1h30m or 7d, or a number of seconds: 0 to 36500d"
_A_SIZE = "must be a size such as 100GB (1000-based) or 100GiB (1024-based), or a number of bytes, not negative"
_A_RATE = "must be a rate such as 20MB/s, or a number of bytes per second, not negative"
_A_SHARE = "must be a share from 0% to 100%, such as 5%"


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole in percent, 0 to 100."""

    percent: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``5%`` or ``2.5 %``. Raises ValueError."""
        match = re.fullmatch(rf"({_NUMBER})\s*%", text.strip(), re.ASCII)
        if match is None or float(match[1]) > 100:
            raise ValueError(_A_SHARE)
        return cls(float(match[1]))

    def __str__(self) -> str:
        return f"{_plain(self.percent)}%"


def parse_duration(value: object) -> float:
    """Return the seconds that ``value`` stands for. Raises ValueError."""
    text = _text(value)
    match = _DURATION.fullmatch(text)
    if re.fullmatch(_NUMBER, text, re.ASCII):
        total = Fraction(text)
    elif match and text:
        total = sum((Fraction(n) * _SECONDS[unit] for unit, n in match.groupdict().items() if n), Fraction())
    else:
        raise ValueError(_A_DURATION)
    if total > _LONGEST:
        raise ValueError(_A_DURATION)
    return float(total)


def parse_size(value: object) -> int:
    """Return the bytes that ``value`` stands for; a broken byte is dropped. Raises ValueError."""
    match = _SIZE.fullmatch(_text(value))
    if match is None or match[2] not in _SPELLINGS:
        raise ValueError(_A_SIZE)
    size_bytes = int(Fraction(match[1]) * _SPELLINGS[match[2]])
    if size_bytes > _LARGEST:
        raise ValueError(f"{_A_SIZE}, and below 2^63 bytes")
    return size_bytes


def parse_rate(value: object) -> int:
    """Return the bytes per second that ``value`` stands for. Raises ValueError."""
    try:
        return parse_size(_text(value).removesuffix("/s"))
    except ValueError as error:
        raise ValueError(_A_RATE) from error


def parse_size_or_share(value: object) -> int | Share:
    """Return bytes, or a share of the whole where ``value`` ends in ``%``. Raises ValueError."""
    if isinstance(value, Share):
        return value
    text = _text(value)
    return Share.parse(text) if text.endswith("%") else parse_size(text)


def parse_share(value: object) -> Share:
    """Return the share that ``value`` stands for. Raises ValueError."""
    return value if isinstance(value, Share) else Share.parse(_text(value))


def parse_count(value: object) -> int:
    """Return the number of parameters that ``value`` stands for: 7B, 8.0B, 270M, 494.03M, 1T. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMBT]?)", _text(value), re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError("must be a number of parameters, such as 7B, 1.5B or 270M")
    return int(Fraction(match[1]) * _COUNTS[match[2].upper()])


def render_count(count: int) -> str:
    """Return the shortest exact text with the largest unit that leaves a whole number."""
    unit = max((u for u in _COUNTS if count % _COUNTS[u] == 0), key=_COUNTS.__getitem__) if count else ""
    return f"{count // _COUNTS[unit]}{unit}"


def render_duration(seconds: float) -> str:
    """Return the text from which ``parse_duration`` reads exactly ``seconds``."""
    rest = Fraction(round(Fraction(seconds) * 1000), 1000)
    if float(rest) != seconds:
        return f"{_plain(seconds)}s"
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _SECONDS[unit])
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def render_size(size_bytes: int) -> str:
    """Return the shortest exact text with the largest unit that leaves a whole number."""
    unit = max((u for u in _BYTES if size_bytes % _BYTES[u] == 0), key=_BYTES.__getitem__) if size_bytes else "B"
    return f"{size_bytes // _BYTES[unit]}{unit}"


def render_rate(bytes_per_s: int) -> str:
    """Return the text from which ``parse_rate`` reads exactly ``bytes_per_s``."""
    return f"{render_size(bytes_per_s)}/s"


def render_size_or_share(value: int | Share) -> str:
    """Return the text from which ``parse_size_or_share`` reads exactly ``value``."""
    return str(value) if isinstance(value, Share) else render_size(value)


def _text(value: object) -> str:
    """Return numbers and texts as text without exponents; anything else as a text that no unit accepts."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "?"
    return _plain(value)


def _plain(number: float) -> str:
    text = f"{Decimal(repr(number)):f}"
    return text.removesuffix(".0")


def _schema(*examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "number"], "examples": [*examples]})


def _shown_by(render: Callable[..., str]) -> PlainSerializer:
    return PlainSerializer(render, return_type=str, when_used="json")


Duration = Annotated[
    float, BeforeValidator(parse_duration), _shown_by(render_duration), _schema("30s", "5m", "1h30m", "7d")
]
ByteSize = Annotated[int, BeforeValidator(parse_size), _shown_by(render_size), _schema("10MB", "100GB", "100GiB")]
Count = Annotated[int, BeforeValidator(parse_count), _shown_by(render_count), _schema("13B")]
Rate = Annotated[int, BeforeValidator(parse_rate), _shown_by(render_rate), _schema("20MB/s")]
SizeOrShare = Annotated[
    int | Share,
    BeforeValidator(parse_size_or_share),
    _shown_by(render_size_or_share),
    _schema("50GB", "5%"),
]
ShareOf = Annotated[Share, BeforeValidator(parse_share), _shown_by(str), _schema("90%")]
