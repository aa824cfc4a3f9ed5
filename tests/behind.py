"""A mirror between its clients and a fake Ollama, with a fake registry above."""

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from mirror.app import RunningMirror
from tests.fakes.ollama import FakeOllama, running_fake_ollama
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.support import Machine, mirrored

NOBODY = "http://127.0.0.1:9"
"""An address at which nothing listens."""


@dataclass(frozen=True)
class Fronted:
    """The mirror, a client of it, and what stands behind and above it."""

    mirror: RunningMirror
    client: Machine
    ollama: FakeOllama
    registry: FakeRegistry

    async def json(self, path: str, said: Mapping[str, Any] | bytes, *, method: str = "POST") -> tuple[int, Any]:
        """As ``asked``, of the mirror."""
        return await asked(self.client, path, said, method=method)


async def asked(
    client: Machine, path: str, said: Mapping[str, Any] | bytes, *, method: str = "POST", **headers: str
) -> tuple[int, Any]:
    """Ask with a JSON body, or with any bytes; return the status and what the body says, as lines if it is lines."""
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    shown = {"Content-Type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
    async with client.session.request(method, client.url(path), data=io.BytesIO(body), headers=shown) as answer:
        raw = await answer.read()
        if answer.content_type == "application/x-ndjson":
            return answer.status, [json.loads(line) for line in raw.splitlines()]
        if raw and answer.content_type == "application/json":
            return answer.status, json.loads(raw)
        return answer.status, raw.decode()


@asynccontextmanager
async def fronted(folder: Path, *, backend: str | None = None, **changes: Any) -> AsyncIterator[Fronted]:
    """A mirror in front of a fake Ollama that holds the model ``m``; ``backend`` is said to it instead where given."""
    async with running_fake_registry() as registry, running_fake_ollama(folder / "ollama") as ollama:
        ollama.folder.add("m", template="{{ .Prompt }}", license="MIT License")
        said = {"proxy__backend": backend or ollama.url, **changes}
        async with mirrored(folder, registry, **said) as (mirror, client):
            yield Fronted(mirror, client, ollama, registry)


def closed() -> dict[str, Any]:
    """Settings of a queue whose window opens in six hours, whatever the time is now."""
    opens = datetime.now(UTC) + timedelta(hours=6)
    return {"pulls__windows": [f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M} UTC"]}


async def lines_of(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the lines of an answer as they come."""
    async for line in answer.content:
        yield json.loads(line)
