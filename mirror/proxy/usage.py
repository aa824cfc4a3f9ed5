"""What an answer cost in tokens, read from its end as it passes (docs/protocol.md §6)."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_END = 64 << 10
_MOST = 100_000_000
"""No answer has more tokens than this, whatever it says."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and made; ``exact`` where the Ollama said so, else the pieces were counted in which it came."""

    prompt: int
    made: int
    exact: bool


class Meter:
    """Watches an answer and keeps its end. For one answer; it looks at every word, which must cost next to nothing."""

    def __init__(self) -> None:
        self._end: deque[bytes] = deque()
        self._kept = 0
        self._pieces = 0

    def watch(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        self._pieces += 1
        self._end.append(chunk)
        self._kept += len(chunk)
        while self._kept - len(self._end[0]) >= _END:
            self._kept -= len(self._end.popleft())

    def usage(self) -> Usage:
        """Return what the whole answer came to."""
        for said in self._objects():
            found = _usage(said)
            if found is not None:
                return found
        return Usage(0, self._pieces, exact=False)

    def _objects(self) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of the end, the last first."""
        for line in reversed(b"".join(self._end)[-_END:].splitlines()):
            text = line.removeprefix(b"data: ").strip()
            if text.startswith(b"{"):
                with suppress(ValueError, RecursionError):
                    yield json.loads(text)


def _usage(said: dict[str, Any]) -> Usage | None:
    """Read Ollama's own last line, OpenAI's ``usage`` or Anthropic's; ``response.completed`` has it one deeper."""
    inner = said.get("response")
    for one in (said, inner if isinstance(inner, dict) else {}):
        usage = one.get("usage")
        if isinstance(usage, dict):
            prompt, made = (_count(usage, *names) for names in (_PROMPT, _MADE))
            if prompt or made:
                return Usage(prompt, made, exact=True)
    prompt, made = _count(said, "prompt_eval_count"), _count(said, "eval_count")
    return Usage(prompt, made, exact=True) if prompt or made else None


_PROMPT, _MADE = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")


def _count(said: dict[str, Any], *names: str) -> int:
    found = next((said[name] for name in names if type(said.get(name)) is int and said[name] > 0), 0)
    return min(found, _MOST)
