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


async def openai_text_events(model: str, words: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a streamed completion (openai/openai.go, ToCompleteChunk)."""
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": model}
    async for word in words:
        yield {**base, "choices": [{"index": 0, "text": word, "finish_reason": None}]}
    yield {**base, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}


def openai_text(model: str, text: str) -> dict[str, Any]:
    """Return a whole completion."""
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "text": text, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def _response(model: str, text: str, status: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}
    usage = {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": model,
        "output": [message] if text else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if text else None,
    }


def openai_response(model: str, text: str) -> dict[str, Any]:
    """Return a whole answer of /v1/responses (openai/responses.go)."""
    return _response(model, text, "completed")


async def openai_response_events(model: str, words: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a streamed one."""
    yield {"type": "response.created", "sequence_number": 0, "response": _response(model, "", "in_progress")}
    text, number = "", 0
    async for word in words:
        text, number = text + word, number + 1
        where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        yield {"type": "response.output_text.delta", "sequence_number": number, **where, "delta": word, "logprobs": []}
    completed = _response(model, text, "completed")
    yield {"type": "response.completed", "sequence_number": number + 1, "response": completed}


def anthropic_message(model: str, text: str) -> dict[str, Any]:
    """Return a whole answer of /v1/messages (anthropic/anthropic.go, ToMessagesResponse)."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }


async def anthropic_events(model: str, words: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a streamed one."""
    begun = {**anthropic_message(model, ""), "content": [], "stop_reason": None}
    yield {"type": "message_start", "message": {**begun, "usage": {"input_tokens": 3, "output_tokens": 0}}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    async for word in words:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"input_tokens": 3, "output_tokens": 4}}
    yield {"type": "message_stop"}


def vectors(texts: Any) -> Iterator[list[float]]:
    """Yield a short vector for each text, another one for every length."""
    for text in [texts] if isinstance(texts, str) else texts:
        yield [float(len(text)), 0.5]


def event(said: dict[str, Any]) -> bytes:
    """Return one server-sent event; those that have a type are called by it."""
    name = f"event: {said['type']}\n".encode() if "type" in said else b""
    return name + b"data: " + json.dumps(said).encode() + b"\n\n"


def line(said: dict[str, Any]) -> bytes:
    """Return one line."""
    return json.dumps(said).encode() + b"\n"
