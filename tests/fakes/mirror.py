"""A mirror that says what it is told to, tells news as server-sent events, and goes away on demand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

_NOTHING: dict[str, Any] = {"/mirror/v1/turns": {}, "/mirror/v1/queue": {}, "/mirror/stats": {}, "/mirror/v1/store": {}}


class FakeMirror:
    """The mirror: set what it ``says`` by path, ``tell`` its news. For one event loop."""

    def __init__(self) -> None:
        self.url = ""
        self.says: dict[str, dict[str, Any]] = {path: dict(said) for path, said in _NOTHING.items()}
        self.refuses: dict[str, tuple[int, str]] = {}
        """Paths that are answered with a problem: its status and its sentence."""
        self.asked: list[str] = []
        self.tells = True
        self._news: asyncio.Queue[bytes] = asyncio.Queue()
        self._port = 0
        self._runner: web.AppRunner | None = None

    def tell(self, topic: str, **said: Any) -> None:
        """Tell one piece of news."""
        self._news.put_nowait(f": still here\n\nevent: {topic}\ndata: {json.dumps(said)}\n\n".encode())

    async def up(self) -> None:
        """Listen, after ``down`` on the same port again."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = int(self._runner.addresses[0][1])
        self.url = f"http://127.0.0.1:{self._port}"

    async def down(self) -> None:
        """Listen no more, and end every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked.append(f"{request.method} {path}")
        if path in self.refuses:
            status, said = self.refuses[path]
            return web.json_response({"detail": said}, status=status)
        if path == "/mirror/v1/events" and self.tells:
            return await self._tell(request)
        if request.method == "GET" and path in self.says:
            return web.json_response(self.says[path])
        return web.Response(status=404, text="404: Not Found")

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(await self._news.get())


@asynccontextmanager
async def running_fake_mirror() -> AsyncIterator[FakeMirror]:
    """Serve on 127.0.0.1 while the block runs."""
    fake = FakeMirror()
    await fake.up()
    try:
        yield fake
    finally:
        await fake.down()
