"""What a mirror has to have, so that requests about things that there are reach them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.behind import Fronted
from tests.hub import SEED
from tests.pages import page
from tests.support import add_blob

_LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}\n'
_PATHS = {"namespace": "library", "model": "m", "reference": "latest", "name": "m", "pattern": "m"}
_BODIES = {
    "name": "m",
    "model": "m",
    "job": "queued",
    "pattern": "m",
    "user": "ann",
    "source": "m",
    "destination": "n",
    "node_id": "node-1",
}


@dataclass(frozen=True, slots=True)
class Seeded:
    """Names of what there is, for the paths and for the bodies of requests."""

    prompt: str
    file: str
    batch: str
    backend: str
    digest: str
    token: str

    def path(self, path: str) -> Mapping[str, str]:
        """Return the parameters of a path."""
        if path.startswith("/mirror/v1/keys"):
            return {"name": "spare"}
        ids = {"/nodes": "node-1", "/v1/files": self.file, "/v1/batches": self.batch}
        id_ = next((one for root, one in ids.items() if path.startswith(root)), self.prompt)
        return {**_PATHS, "digest": self.digest, "id": id_, "key": "a", "action": "now"}

    def body(self, path: str) -> Mapping[str, str]:
        """Return fields of a body."""
        name = {"name": "spare"} if path.startswith(("/mirror/keys", "/mirror/v1/keys")) else {}
        return {
            **_BODIES,
            **name,
            "backend": self.backend,
            "id": self.prompt,
            "input_file_id": self.file,
            "form": self.token,
        }


@dataclass(frozen=True, slots=True)
class Seeder:
    """Asks the mirror for things, as one who may do everything."""

    at: Fronted
    headers: Mapping[str, str]

    async def seeded(self) -> Seeded:
        """Have everything there, whatever became of what was there before."""
        _, digest = add_blob(self.at.registry, 1000)
        if (await self._ask("GET", "/mirror/v1/models/m"))[0] == 404:
            await self._ask("POST", "/mirror/v1/pulls", {"name": "m"})
        await self._ask("POST", "/mirror/v1/queue", {"name": "queued"})
        await self._ask("POST", "/mirror/v1/queue/resume")
        await self._ask("POST", "/mirror/v1/store/pins", {"pattern": "m"})
        await self._ask("POST", "/mirror/v1/keys", {"name": "spare"})
        await self._ask("POST", "/nodes/heartbeat", {**SEED, "node_id": "node-1", "models": []})
        file = (await self._upload())["id"]
        batch = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        return Seeded(
            prompt=(await self._ask("POST", "/api/v1/prompt", {"prompt": "say"}))[1]["id"],
            file=file,
            batch=(await self._ask("POST", "/v1/batches", batch))[1]["id"],
            backend=(await self._ask("GET", "/mirror/v1/turns"))[1]["backends"][0]["id"],
            digest=str(digest),
            token=(await page(self.at.client, "/mirror/pulls", dict(self.headers))).token,
        )

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        url, session = self.at.client.url(path), self.at.client.session
        async with session.request(method, url, json=body, headers=self.headers) as answer:
            raw = await answer.read()
            return answer.status, json.loads(raw) if answer.content_type == "application/json" else raw

    async def _upload(self) -> dict[str, Any]:
        form = aiohttp.FormData()
        form.add_field("file", _LINE, filename="in.jsonl")
        form.add_field("purpose", "batch")
        url = self.at.client.url("/v1/files")
        async with self.at.client.session.post(url, data=form, headers=self.headers) as answer:
            said: dict[str, Any] = await answer.json()
            return said
