"""An Ollama that answers each request after a fixed time, one at a time, and counts them: for measuring queues."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

MODEL = "demo"
_ROW = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "size": 1, "digest": "0" * 64, "details": {}}


@dataclass
class Answering:
    """The Ollama: ``prompts`` counts each prompt that it worked on to the end."""

    service_s: float
    url: str = ""
    prompts: Counter[str] = field(default_factory=Counter)
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Answer a prompt with one word (server/routes.go, GenerateHandler)."""
        said = await request.json()
        async with self._one:
            await asyncio.sleep(self.service_s)
            self.prompts[str(said.get("prompt", ""))] += 1
        ending = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 10}
        return web.json_response({"model": MODEL, "response": "yes", **ending})

    async def models(self, _: web.Request) -> web.StreamResponse:
        """List the one model."""
        return web.json_response({"models": [_ROW]})


@asynccontextmanager
async def answering(service_s: float) -> AsyncIterator[Answering]:
    """Run it on a port of the system's choice."""
    ollama = Answering(service_s)
    app = web.Application()
    app.add_routes(
        [
            web.post("/api/generate", ollama.generate),
            web.get("/api/tags", ollama.models),
            web.get("/api/ps", ollama.models),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ollama.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield ollama
    finally:
        await runner.cleanup()
