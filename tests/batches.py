"""A client of batches: OpenAI's own."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from openai.types import Batch

from tests.behind import Fronted, fronted
from tests.support import eventually

CHAT = "/v1/chat/completions"


def chat(id_: str, text: str = "say", **changes: Any) -> dict[str, Any]:
    """A line of the input."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": id_, "method": "POST", "url": CHAT, "body": body, **changes}


def jsonl(*lines: Any) -> bytes:
    """A file of lines; those that are bytes are as they are."""
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)


@dataclass
class Batching:
    """Who has batches done."""

    client: openai.AsyncOpenAI

    async def upload(self, *lines: Any) -> str:
        """Bring a file; its id."""
        return (await self.client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")).id

    async def begin(self, *lines: Any, endpoint: Any = CHAT, **said: Any) -> Batch:
        """Bring a file, and have it done."""
        file = await self.upload(*lines)
        return await self.client.batches.create(input_file_id=file, endpoint=endpoint, completion_window="24h", **said)

    async def until(self, id_: str, status: str) -> Batch:
        """Wait until a batch is that far."""

        async def is_so() -> bool:
            return (await self.client.batches.retrieve(id_)).status == status

        await eventually(is_so)
        return await self.client.batches.retrieve(id_)

    async def until_answered(self, id_: str, least: int) -> None:
        """Wait until so many of its lines are completed."""

        async def is_so() -> bool:
            counts = (await self.client.batches.retrieve(id_)).request_counts
            return counts is not None and counts.completed >= least

        await eventually(is_so)

    async def lines(self, file: str | None) -> list[dict[str, Any]]:
        """What is in a file."""
        if file is None:
            return []
        content = (await self.client.files.content(file)).read()
        return [json.loads(line) for line in content.splitlines()]


def using(url: str, key: str = "ollama", **headers: str) -> Batching:
    """OpenAI's client of a mirror."""
    return Batching(openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, default_headers=headers))


@asynccontextmanager
async def batching(folder: Path, **changes: Any) -> AsyncIterator[tuple[Fronted, Batching]]:
    """A mirror in front of a fake Ollama, and a client."""
    async with fronted(folder, **{"prompts__model": "m", "prompts__retry_delay": 0.01, **changes}) as at:
        me = using(at.mirror.url)
        async with me.client:
            yield at, me
