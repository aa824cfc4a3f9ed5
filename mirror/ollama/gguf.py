"""The head of a model file: what it says of itself before its vocabulary (GGUF versions 2 and 3, ggml docs/gguf.md).

The bytes may come from anybody. No count in them is believed: what is read is bounded, and what is wrong is an error.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mirror.errors import MirrorError

Value = str | int | float | bool | list["Value"]
Read = Callable[[int, int], bytes]
"""Returns so many bytes from an offset on; fewer at the end of the file."""

_MOST_BYTES = 4 << 20
_MOST_VALUES = 4096
_LONGEST_KEY = 65_535
_LONGEST_TEXT = 1 << 20
_SHOWN_ITEMS = 5
_WINDOW = 64 << 10
_STRING, _ARRAY = 8, 9
_PLAIN: Mapping[int, struct.Struct] = {
    kind: struct.Struct(f"<{form}")
    for kind, form in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_KINDS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


class BadModelFile(MirrorError):
    """A file that is no GGUF, or one whose head cannot be as it says."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model file says of itself: ``values`` by key, in the order of the file, arrays of more than five empty."""

    values: Mapping[str, Value]

    @property
    def architecture(self) -> str:
        """Such as llama; empty where it does not say."""
        said = self.values.get("general.architecture")
        return said if isinstance(said, str) else ""

    @property
    def quantisation(self) -> str:
        """Such as Q4_K_M (llama.cpp's file types); empty where it does not say, or something newer."""
        said = self.values.get("general.file_type")
        return _KINDS.get(said, "") if isinstance(said, int) else ""

    def number(self, name: str) -> int | None:
        """Return a number of its architecture's, such as ``context_length``; None where it does not say."""
        said = self.values.get(f"{self.architecture}.{name}")
        return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else None


def read_model_file(read: Read) -> ModelFile:
    """Read the head of a model file up to the first key of its vocabulary; blocks as ``read`` does.

    Raises:
        BadModelFile: no GGUF of a version that is known, or a head that is cut short or not to be believed.
    """
    head = _Head(read)
    if head.take(4) != b"GGUF":
        raise BadModelFile("this is no model file: invalid file magic")
    version = head.number("<I")
    if version not in (2, 3):
        raise BadModelFile(f"this model file is a GGUF of version {version}; versions 2 and 3 are known")
    head.number("<Q")  # how many tensors
    values: dict[str, Value] = {}
    for _ in range(min(head.number("<Q"), _MOST_VALUES)):
        key = head.text(_LONGEST_KEY)
        if key.startswith("tokenizer."):
            break
        values[key] = head.value(head.number("<I"))
    return ModelFile(values)


class _Head:
    """Takes values one after another, through a window so that a file is not read byte by byte."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._at = 0
        self._window = b""
        self._window_at = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        self._bounded(count)
        start = self._at - self._window_at
        if not 0 <= start <= start + count <= len(self._window):
            self._window, self._window_at, start = self._read(self._at, max(count, _WINDOW)), self._at, 0
        found = self._window[start : start + count]
        if len(found) < count:
            raise BadModelFile("this model file ends in the middle of its head")
        self._at += count
        return found

    def number(self, form: str) -> int:
        """Return the next whole number."""
        found = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return int(found)

    def text(self, longest: int = _LONGEST_TEXT) -> str:
        """Return the next text."""
        length = self.number("<Q")
        if length > longest:
            raise BadModelFile(f"this model file has a text of {length} bytes where at most {longest} make sense")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Value:
        """Return the next value."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._items(self.number("<I"), self.number("<Q"))
        return self._plain(kind)

    def _plain(self, kind: int) -> Value:
        form = _PLAIN.get(kind)
        if form is None:
            raise BadModelFile(f"this model file has a value of the unknown kind {kind}")
        found: int | float | bool = form.unpack(self.take(form.size))[0]
        # JSON has no word for what is no number.
        return 0.0 if isinstance(found, float) and not math.isfinite(found) else found

    def _items(self, kind: int, count: int) -> list[Value]:
        if kind == _STRING:
            if count > _MOST_VALUES:
                raise BadModelFile(f"this model file lists {count} texts where at most {_MOST_VALUES} make sense")
            found: list[Value] = []
            for _ in range(count):
                text = self.text()
                found += [text] if count <= _SHOWN_ITEMS else []
            return found
        form = _PLAIN.get(kind)
        if form is None:
            raise BadModelFile(f"this model file has a list of the unknown kind {kind}")
        if count <= _SHOWN_ITEMS:
            return [self._plain(kind) for _ in range(count)]
        self._bounded(form.size * count)
        self._at += form.size * count
        return []

    def _bounded(self, count: int) -> None:
        if self._at + count > _MOST_BYTES:
            raise BadModelFile(f"this model file says more than {_MOST_BYTES} bytes before its vocabulary")
