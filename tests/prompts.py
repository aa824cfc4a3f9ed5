"""A client of prompt jobs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.behind import Fronted, asked, fronted
from tests.support import Machine, eventually


@dataclass(frozen=True)
class Told:
    """One server-sent event."""

    id: str
    event: str
    said: dict[str, Any]


@dataclass
class Prompting:
    """Who asks for prompt jobs; ``headers`` have underscores for hyphens."""

    client: Machine
    headers: dict[str, str] = field(default_factory=dict)

    async def submit(self, text: str = "say", **said: Any) -> str:
        """Ask for one; its id."""
        status, answer = await self.post({"prompt": text, **said})
        assert status == 200, answer
        assert list(answer) == ["id"]
        return str(answer["id"])

    async def post(self, said: Any) -> tuple[int, Any]:
        """Submit any body."""
        return await asked(self.client, "/api/v1/prompt", said, **self.headers)

    async def get(self, path: str, *, method: str = "GET") -> tuple[int, Any]:
        """Ask for what is below /api/v1."""
        answer = await self.client.get(f"/api/v1/{path}", None, method=method, **self.headers)
        return answer.status, json.loads(answer.body)

    async def status(self, id_: str) -> str:
        """How far it is."""
        return str((await self.get(f"prompt/{id_}/status"))[1]["status"])

    async def until(self, id_: str, status: str) -> dict[str, Any]:
        """Wait until it is that far; what the result then is."""

        async def is_so() -> bool:
            return await self.status(id_) == status

        await eventually(is_so)
        said: dict[str, Any] = (await self.get(f"prompt/{id_}/result"))[1]
        return said

    @asynccontextmanager
    async def reading(self, id_: str, last: str = "") -> AsyncIterator[AsyncIterator[Told]]:
        """Read its events, from after one of them."""
        headers = {key.replace("_", "-"): value for key, value in self.headers.items()}
        if last:
            headers["Last-Event-ID"] = last
        url = self.client.url(f"/api/v1/prompt/{id_}/events")
        async with self.client.session.get(url, headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            yield _events(answer)

    async def events(self, id_: str, last: str = "") -> list[Told]:
        """All of them, to the end."""
        async with self.reading(id_, last) as found:
            return [one async for one in found]


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Told]:
    fields: dict[str, str] = {}
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Told(fields["id"], fields.get("event", ""), json.loads(fields["data"]))
            fields = {}


@asynccontextmanager
async def prompting(folder: Path, **changes: Any) -> AsyncIterator[tuple[Fronted, Prompting]]:
    """A mirror whose prompts are for the model ``m``, which fails without long waits, and a client."""
    said = {"prompts__model": "m", "prompts__retry_delay": 0.01, **changes}
    async with fronted(folder, **said) as at:
        yield at, Prompting(at.client)
