"""The heads of model files, among them those that somebody made to do harm."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.demo.model import write_model
from mirror.ollama import BadModelFile, ModelFile, read_model_file

U32, TEXT, LIST = 4, 8, 9


def text(said: str) -> bytes:
    """A text as GGUF writes it."""
    return struct.pack("<Q", len(said.encode())) + said.encode()


def head(*pairs: bytes, count: int | None = None, version: int = 3) -> bytes:
    """A head with these values, or with another number of them than there are."""
    return struct.pack("<4sIQQ", b"GGUF", version, 7, len(pairs) if count is None else count) + b"".join(pairs)


def pair(key: str, kind: int, value: bytes) -> bytes:
    """One value."""
    return text(key) + struct.pack("<I", kind) + value


def listed(kind: int, count: int, items: bytes = b"") -> bytes:
    """A list of so many items, which need not be there."""
    return struct.pack("<IQ", kind, count) + items


def read(raw: bytes) -> ModelFile:
    """Read a head from memory."""
    return read_model_file(lambda at, count: raw[at : at + count])


GOOD = (
    pair("general.architecture", TEXT, text("qwen3")),
    pair("general.file_type", U32, struct.pack("<I", 15)),
    pair("qwen3.context_length", 10, struct.pack("<Q", 40960)),
    pair("qwen3.rope.freq_base", 6, struct.pack("<f", 0.5)),
    pair("qwen3.yes", 7, b"\x01"),
    pair("general.tags", LIST, listed(TEXT, 2, text("a") + text("b"))),
    pair("qwen3.long", LIST, listed(U32, 6, bytes(24))),
    pair("qwen3.after", U32, struct.pack("<I", 9)),
)


def test_what_a_head_says() -> None:
    """Every kind of value; a list of more than five is skipped, as Ollama shows it empty, and what follows is read."""
    found = read(head(*GOOD))

    assert found.values == {
        "general.architecture": "qwen3",
        "general.file_type": 15,
        "qwen3.context_length": 40960,
        "qwen3.rope.freq_base": 0.5,
        "qwen3.yes": True,
        "general.tags": ["a", "b"],
        "qwen3.long": [],
        "qwen3.after": 9,
    }
    assert (found.architecture, found.quantisation, found.number("context_length")) == ("qwen3", "Q4_K_M", 40960)
    assert (found.number("embedding_length"), found.number("yes")) == (None, None)


def test_reading_ends_where_the_vocabulary_begins() -> None:
    """It has a hundred thousand texts, which nobody asked for; half of them may be missing here."""
    found = read(head(*GOOD, pair("tokenizer.ggml.tokens", LIST, listed(TEXT, 150_000)), count=30))

    assert list(found.values)[-1] == "qwen3.after"


def test_a_file_that_is_really_one(tmp_path: Path) -> None:
    """From the disk, as it is read there."""
    model = write_model(tmp_path, size=100_000)
    raw = model.path(model.blobs[0].digest).read_bytes()

    assert (read(raw).architecture, read(raw).number("context_length")) == ("llama", 8192)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "ends in the middle"),
        (b"PK\x03\x04 a zip file", "invalid file magic"),
        (head(version=1), "version 1"),
        (head(version=0x03000000), "version 50331648"),
        (head(count=1), "ends in the middle"),
        (head(count=1 << 63), "ends in the middle"),
        (head(struct.pack("<Q", 1 << 62)), "a text of 4611686018427387904 bytes"),
        (head(pair("a", TEXT, struct.pack("<Q", 1 << 40))), "a text of"),
        (head(pair("a", 99, b"")), "unknown kind 99"),
        (head(pair("a", LIST, listed(LIST, 3))), "a list of the unknown kind 9"),
        (head(pair("a", LIST, listed(TEXT, 1 << 60))), "lists 1152921504606846976 texts"),
        (head(pair("a", LIST, listed(12, 1 << 60))), "more than 4194304 bytes"),
        (head(*(pair(str(at), LIST, listed(0, 2 << 20)) for at in range(3))), "more than|middle"),
    ],
)
def test_a_head_that_cannot_be_is_an_error(raw: bytes, why: str) -> None:
    """Uploads and mirrors of mirrors bring any bytes; a count of them must not become our memory or our time."""
    with pytest.raises(BadModelFile, match=why):
        read(raw)


def test_no_more_is_read_than_makes_sense() -> None:
    """Whatever the file says of itself, a few megabytes are all that is asked of the disk."""
    asked: list[tuple[int, int]] = []

    def endless(at: int, count: int) -> bytes:
        asked.append((at, count))
        raw = head(*(pair(f"key{one}", TEXT, text("x" * 900_000)) for one in range(9)))
        return raw[at : at + count]

    with pytest.raises(BadModelFile, match="more than"):
        read_model_file(endless)
    assert max(at + count for at, count in asked) <= 6 << 20


@given(st.integers(0, len(head(*GOOD)) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_an_answer_or_an_error(place: int, value: int) -> None:
    """And nothing else: no other exception, and values that JSON can write."""
    raw = bytearray(head(*GOOD))
    raw[place] = value
    found: Any = None
    try:
        found = read(bytes(raw)).values
    except BadModelFile:
        return
    json.dumps(found, allow_nan=False)


@given(st.integers(0, len(head(*GOOD)) - 1))
def test_a_cut_head_is_an_error(length: int) -> None:
    """At every byte."""
    with pytest.raises(BadModelFile):
        read(head(*GOOD)[:length])
