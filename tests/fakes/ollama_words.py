"""What a fake Ollama says: a few words, one at a time, as lines of its own API or as events of OpenAI's."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

CREATED = "2026-01-02T03:04:05.678901Z"
_COUNTS = {"total_duration": 5_000_000, "load_duration": 1_000, "prompt_eval_count": 3, "eval_count": 4}


@dataclass
class Pace:
    """How fast words come: ``seconds`` between two of them, or held until they are released. Counts the ones said."""

    seconds: float = 0.0
    said: int = 0
    _held: bool = False
    _released: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def hold(self) -> None:
        """From now on say a word only when one is released."""
        self._held = True

    def release(self, count: int = 1) -> None:
        """Let so many words be said."""
        for _ in range(count):
            self._released.release()

    async def next(self) -> None:
        """Wait for the turn of the next word."""
        if self._held:
            await self._released.acquire()
        elif self.seconds:
            await asyncio.sleep(self.seconds)
        self.said += 1


async def spoken(pace: Pace, words: tuple[str, ...]) -> AsyncIterator[str]:
    """Yield the words, each in its turn."""
    for word in words:
        await pace.next()
        yield word


async def generate_lines(model: str, words: AsyncIterator[str], *, chat: bool) -> AsyncIterator[dict[str, Any]]:
    """Yield the lines of /api/generate or /api/chat (api/types.go, GenerateResponse and ChatResponse)."""

    def said(word: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": word}} if chat else {"response": word}

    base = {"model": model, "created_at": CREATED}
    async for word in words:
        yield {**base, **said(word), "done": False}
    yield {**base, **said(""), "done": True, "done_reason": "stop", **_COUNTS}


async def whole_answer(lines: AsyncIterator[dict[str, Any]], *, chat: bool) -> dict[str, Any]:
    """Return the lines as the one object of ``stream: false``."""
    text, last = "", {}
    async for line in lines:
        text += line["message"]["content"] if chat else line["response"]
        last = line
    return {**last, **({"message": {"role": "assistant", "content": text}} if chat else {"response": text})}


async def openai_events(model: str, words: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a streamed chat completion (openai/openai.go, ToChunk)."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    async for word in words:
        delta = {"role": "assistant", "content": word}
        yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def openai_completion(model: str, text: str) -> dict[str, Any]:
    """Return a whole chat completion."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def vectors(texts: Any) -> Iterator[list[float]]:
    """Yield a short vector for each text, another one for every length."""
    for text in [texts] if isinstance(texts, str) else texts:
        yield [float(len(text)), 0.5]


def event(said: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def line(said: dict[str, Any]) -> bytes:
    """Return one line."""
    return json.dumps(said).encode() + b"\n"
