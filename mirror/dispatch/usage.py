"""What an answer cost in tokens, read from its end as it passes (docs/protocol.md §6)."""

import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PROMPT_SHARE = 0.1
"""What a token read costs of one made: a prompt is worked through all at once."""
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
        end = b"".join(self._end)[-_END:]
        for said in _objects(end):
            found = _usage(said)
            if found is not None:
                return found
        prompt, made = (_last(pattern, end) for pattern in (_READ_KEY, _MADE_KEY))
        if prompt or made:
            return Usage(prompt, made, exact=True)
        return Usage(0, self._pieces, exact=False)


def _objects(end: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of the end, the last first."""
    for line in reversed(end.splitlines()):
        text = line.removeprefix(b"data: ").strip()
        if text.startswith(b"{"):
            with suppress(ValueError, RecursionError):
                yield json.loads(text)


def _last(pattern: re.Pattern[bytes], end: bytes) -> int:
    """Return the last count of an object whose beginning is no more known."""
    found = pattern.findall(end)
    return min(int(found[-1][:12]), _MOST) if found else 0


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


_READ_KEY = re.compile(rb'"(?:prompt_eval_count|prompt_tokens|input_tokens)"\s*:\s*(\d+)')
_MADE_KEY = re.compile(rb'"(?:eval_count|completion_tokens|output_tokens)"\s*:\s*(\d+)')
_PROMPT, _MADE = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")


def _count(said: dict[str, Any], *names: str) -> int:
    found = next((said[name] for name in names if type(said.get(name)) is int and said[name] > 0), 0)
    return min(found, _MOST)
