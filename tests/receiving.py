"""A program that webhooks tell, and the check that docs/pulls.md says."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support import SOON_S


@dataclass(frozen=True, slots=True)
class Post:
    """One request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def view(self) -> dict[str, Any]:
        """What it says."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(slots=True)
class Receiver:
    """A program that is told, and answers with ``statuses`` in turn: 0 once it is released, 302 leads to itself."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        """Note it, and answer."""
        self.posts.append(Post(request.path_qs, request.headers.copy(), await request.read()))
        self.came.set()
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 0:
            await self.released.wait()
        return web.Response(
            status=status or 204, headers={"Location": f"{self.url}/elsewhere"} if status == 302 else {}
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, looked at whenever something comes."""
        async with asyncio.timeout(SOON_S):
            while not holds():
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    """A receiver on a port of the system's choice."""
    receiver, app = Receiver(statuses=list(statuses)), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}"
        yield receiver
    finally:
        await runner.cleanup()


def is_ours(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> bool:
    """Check a signature as docs/pulls.md says it."""
    timestamp = headers["X-Mirror-Timestamp"]
    wanted = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    fresh = abs(now - int(timestamp)) < 300
    return fresh and hmac.compare_digest(f"sha256={wanted}", headers["X-Mirror-Signature"])
