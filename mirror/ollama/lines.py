"""Answers that come line by line, each a JSON object (application/x-ndjson)."""

import json
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import suppress
from typing import Any

from mirror.errors import BackendError, BackendRefused

LONGEST_LINE = 8 << 20
"""What Ollama's own client takes (api/client.go, maxBufferSize)."""


async def lines_of(chunks: AsyncIterable[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """Yield each line as soon as it is whole, until it is closed; a last line need not end in a line break.

    Raises:
        BackendRefused: a line says ``error``, as it does where the status had gone out before (docs/protocol.md §6).
        BackendError: a line that is no JSON object, or longer than Ollama's own client takes.
    """
    rest = bytearray()
    async for chunk in chunks:
        start = len(rest)
        rest += chunk
        while (end := rest.find(b"\n", start)) >= 0:
            line, start = bytes(rest[:end]), 0
            del rest[: end + 1]
            if line.strip():
                yield _read(line)
        if len(rest) > LONGEST_LINE:
            raise BackendError(f"the Ollama behind this mirror sent a line of more than {LONGEST_LINE} bytes")
    if rest.strip():
        yield _read(bytes(rest))


def _read(line: bytes) -> dict[str, Any]:
    said: Any = None
    with suppress(ValueError, RecursionError):
        said = json.loads(line)
    if not isinstance(said, dict):
        shown = line[:200].decode("utf-8", "replace")
        raise BackendError(f"the Ollama behind this mirror sent a line that is no JSON object: {shown}")
    if error := said.get("error"):
        raise BackendRefused(200, error if isinstance(error, str) else json.dumps(error))
    return said
