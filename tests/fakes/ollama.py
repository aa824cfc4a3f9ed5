"""An Ollama that speaks /api and /v1 over a real models folder, pulls by itself, and goes wrong on demand.

In a test: ``async with running_fake_ollama(folder) as fake``. As a program: ``python -m tests.fakes.ollama --models
FOLDER``, which prints its URL. There ``POST /faults`` with a Set as JSON sets a trouble, ``DELETE /faults`` ends all of
them, and ``GET /log`` shows the requests so far.
"""

import argparse
import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from mirror.ollama import error_body
from mirror.values import InvalidDigest, InvalidModelName
from tests.fakes.ollama_api import Api, error
from tests.fakes.ollama_folder import ModelsFolder
from tests.fakes.ollama_trouble import Asked, Set, Trouble, Troubles
from tests.fakes.ollama_words import Pace, event, line

_TROUBLE = web.RequestKey("trouble", Set)
_CONTROLS = ("/faults", "/log")
_LINES = {"Content-Type": "application/x-ndjson"}


class FakeOllama:
    """The Ollama: give it models, have it go wrong, look at what it was asked. For one event loop."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self.folder = ModelsFolder(folder)
        self.troubles = Troubles()
        self.pace = Pace()
        self.words: tuple[str, ...] = ("one", " two", " three", " four")
        self.part_min = 100_000_000
        """Bytes of the smallest range it asks for when it pulls."""
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def asked(self) -> list[Asked]:
        """The requests so far."""
        return self.troubles.asked

    async def up(self, port: int = 0) -> None:
        """Listen, after ``down`` on the same port again."""
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1, auto_decompress=False
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port or self._port, reuse_address=True).start()
        self._port = int(self._runner.addresses[0][1])
        self.url = f"http://127.0.0.1:{self._port}"

    async def down(self) -> None:
        """Listen no more, and end every connection."""
        self.troubles.let_go.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._log], client_max_size=1 << 30)
        app.add_routes(
            [
                *Api(self, self._lines).routes(),
                web.post("/faults", self._set_trouble),
                web.delete("/faults", self._end_troubles),
                web.get("/log", self._show_log),
            ]
        )
        return app

    @web.middleware
    async def _log(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _CONTROLS:
            return await handler(request)
        asked = Asked(request.method, request.path, dict(request.headers), request.raw_path)
        self.troubles.note(asked)
        try:
            if not request.path.startswith("/api/blobs/"):
                asked.body = await request.read()
            answer = await self._troubled(request, handler)
            asked.status = answer.status
        except asyncio.CancelledError:
            asked.left = True
            raise
        finally:
            self.troubles.tell()
        return answer

    async def _troubled(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        trouble = self.troubles.take(request.path)
        if trouble is not None:
            request[_TROUBLE] = trouble
            if trouble.what is Trouble.STATUS:
                return error(trouble.status, trouble.text)
            if trouble.what is Trouble.HOLD:
                await self.troubles.let_go.wait()
        try:
            return await handler(request)
        except InvalidModelName:
            return _refused(request, "invalid model name")
        except InvalidDigest:
            return _refused(request, "invalid digest format")
        except (AttributeError, KeyError, TypeError, ValueError) as wrong:
            return _refused(request, f"a body that cannot be: {wrong}")

    async def _lines(
        self, request: web.Request, lines: AsyncIterator[dict[str, Any]], *, sse: bool = False
    ) -> web.StreamResponse:
        """Send lines as they come, or what goes wrong with them."""
        trouble, count = request.get(_TROUBLE), 0
        fails = trouble is not None and trouble.what in (Trouble.CUT, Trouble.ERROR)
        if trouble is not None and trouble.what is Trouble.ERROR and trouble.after == 0:
            return error(500, trouble.text)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"} if sse else _LINES)
        await response.prepare(request)
        async for said in lines:
            if fails and trouble is not None and count == trouble.after:
                if trouble.what is Trouble.CUT:
                    _reset(request)
                    return response
                await response.write(line({"error": trouble.text}))
                break
            await response.write(event(said) if sse else line(said))
            count += 1
        if sse and request.path in ("/v1/chat/completions", "/v1/completions"):
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _set_trouble(self, request: web.Request) -> web.StreamResponse:
        self.troubles.put(Set.parse(await request.text()))
        return web.Response(status=204)

    async def _end_troubles(self, _: web.Request) -> web.StreamResponse:
        self.troubles.clear()
        return web.Response(status=204)

    async def _show_log(self, _: web.Request) -> web.StreamResponse:
        rows = [{**asdict(one), "body": one.body.decode("utf-8", "replace")} for one in self.asked]
        return web.json_response(rows)


def _refused(request: web.Request, said: str) -> web.Response:
    """Return a 400 in the shape of the face that was asked."""
    return web.json_response(error_body(request.path, 400, said), status=400)


def _reset(request: web.Request) -> None:
    """Close so that the other side gets a reset, not an end."""
    if request.transport is None:
        return
    sock: socket.socket = request.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


@asynccontextmanager
async def running_fake_ollama(folder: Path, *, port: int = 0) -> AsyncIterator[FakeOllama]:
    """Serve the Ollama whose models lie in ``folder`` on 127.0.0.1 while the block runs."""
    fake = FakeOllama(folder)
    await fake.up(port)
    try:
        yield fake
    finally:
        await fake.down()


async def _serve(options: argparse.Namespace) -> None:
    async with running_fake_ollama(options.models, port=options.port) as fake:
        fake.pace.seconds = options.pace
        fake.troubles.remembers = options.remembers
        sys.stdout.write(f"{fake.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Run as a program until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.ollama", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="a folder such as OLLAMA_MODELS")
    parser.add_argument("--port", type=int, default=0, help="0: the system chooses")
    parser.add_argument("--remembers", type=int, help="about how many requests GET /log shows; all, if not said")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds for each word")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
