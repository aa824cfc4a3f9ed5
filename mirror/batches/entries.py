"""The lines of a batch's input: each a request, or what is wrong with it. Blocking; for a thread."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from mirror.prompts import refusal
from mirror.values import too_many_parts

_SLAB_BYTES, _SLAB_LINES = 1 << 20, 200
_CHUNK = 1 << 20
_LONGEST_ID = 512
_MADE = 256.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A line, counted from 1 without empty ones: a ``body`` for ``model``, or why it is not run."""

    number: int
    custom_id: str | None
    model: str = ""
    body: dict[str, Any] | None = None
    cost: float = 1.0
    problem: str | None = None


def counted(path: Path) -> int:
    """Return how many lines a file has that are not empty."""
    found, begun = 0, False
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            *whole, rest = chunk.split(b"\n")
            for line in whole:
                found += begun or bool(line.strip())
                begun = False
            begun = begun or bool(rest.strip())
    return found + begun


class Entries:
    """Reads the lines of a file once, a few at a time; use it as a context."""

    def __init__(self, path: Path, endpoint: str, longest: int) -> None:
        """A line of more than ``longest`` bytes is not run."""
        self._path = path
        self._endpoint = endpoint
        self._longest = longest
        self._file: BinaryIO | None = None
        self._number = 0
        self._seen: set[bytes] = set()

    def __enter__(self) -> Self:
        self._file = self._path.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def some(self) -> list[Entry]:
        """Return the next lines; none at the end."""
        found: list[Entry] = []
        size = 0
        for raw in self._lines():
            found.append(self._read(raw))
            size += len(raw)
            if size >= _SLAB_BYTES or len(found) >= _SLAB_LINES:
                break
        return found

    def _lines(self) -> Iterator[bytes]:
        """Yield those that are not empty; of one that is too long the beginning."""
        assert self._file is not None  # noqa: S101  # it is a context
        while raw := self._file.readline(self._longest + 1):
            rest = raw
            while rest and not rest.endswith(b"\n"):
                rest = self._file.readline(_CHUNK)
                if rest.strip() and not raw.strip():
                    raw = rest  # what came before were blanks
            if raw.strip():
                yield raw

    def _read(self, raw: bytes) -> Entry:
        self._number += 1
        if len(raw) > self._longest:
            return self._wrong(None, "line_too_long", f"the line has more than {self._longest} bytes (proxy.max_body)")
        if too_many_parts(raw):
            return self._wrong(None, "line_too_long", "the line's JSON has too many parts")
        said: Any = None
        with suppress(ValueError, RecursionError):
            said = json.loads(raw)
        if not isinstance(said, dict):
            return self._wrong(None, "invalid_json", "the line is no JSON object")
        id_ = said.get("custom_id")
        if not isinstance(id_, str) or not 0 < len(id_) <= _LONGEST_ID:
            said_id = f"the line has no custom_id of 1 to {_LONGEST_ID} characters"
            return self._wrong(None, "missing_custom_id", said_id)
        mark = hashlib.blake2b(json.dumps(id_).encode(), digest_size=12).digest()
        if mark in self._seen:
            return self._wrong(id_, "duplicate_custom_id", "an earlier line has the same custom_id")
        self._seen.add(mark)
        return self._request(id_, said, len(raw))

    def _request(self, id_: str, said: dict[str, Any], size: int) -> Entry:
        if said.get("method", "POST") != "POST":
            return self._wrong(id_, "invalid_method", "the line's method is not POST")
        if said.get("url") != self._endpoint:
            return self._wrong(
                id_, "mismatched_endpoint", f"the line's url is not {self._endpoint}, which the batch is for"
            )
        body = said.get("body")
        model = body.get("model") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(model, str) or not model.strip():
            return self._wrong(id_, "invalid_body", "the line's body is no object with a model")
        kept = {key: value for key, value in body.items() if key not in ("model", "stream", "stream_options")}
        return Entry(self._number, id_, model.strip(), kept, _cost(kept, self._endpoint, size))

    def _wrong(self, id_: str | None, code: str, message: str) -> Entry:
        return Entry(self._number, id_, problem=refusal(code, message))


def _cost(body: dict[str, Any], endpoint: str, size: int) -> float:
    """Return what an answer may come to, in tokens made; a token read costs a tenth."""
    limits = [body.get(key) for key in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
    made = min([_MADE, *(float(one) for one in limits if type(one) is int and 0 < one <= _MADE)])
    return (1.0 if endpoint.endswith("/embeddings") else made) + size / 40
