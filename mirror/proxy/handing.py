"""An answer of an Ollama on its way to the client, as it comes; one that breaks off never looks whole."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from mirror.errors import BackendDown
from mirror.ollama import Backend, error_body
from mirror.proxy.bodies import compact
from mirror.proxy.headers import handed_back

_LINES, _EVENTS = "application/x-ndjson", "text/event-stream"
_FLUSH_S = 2.0
_STUCK_S = 60.0
_SMALL = 16 << 10


@dataclass(slots=True)
class Answer:
    """An answer whose head is here. ``begin`` waits for the first of its body; ``watch`` sees all that goes on.

    ``broken`` says why it broke off, if it did.
    """

    backend: Backend
    reply: aiohttp.ClientResponse
    watch: Callable[[bytes], None] = lambda _: None
    broken: BackendDown | None = None
    _first: bytes = b""
    _chunks: AsyncGenerator[bytes, None] | None = field(default=None, repr=False)

    async def begin(self, within_s: float | None = None) -> None:
        """Wait for the first bytes of the body, its end, or ``within_s``. Raises BackendDown: it broke off before."""
        self._chunks = self.backend.chunks(self.reply)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                self._first = await anext(self._chunks, b"")

    async def hand_on(self, request: web.Request, more: Mapping[str, str] | None = None) -> web.StreamResponse:
        """Send it all to the client; ``more`` are further headers. A client that has left is no error."""
        reply = self.reply
        headers = handed_back(reply.headers)
        headers.update(more or {})
        if self._first and headers.get("Content-Length") == str(len(self._first)):
            self.watch(self._first)  # all of it is here: head and body go out as one
            if self._chunks is not None:
                await self._chunks.aclose()  # else the loop is woken to do it
            return web.Response(status=reply.status, reason=reply.reason, headers=headers, body=self._first)
        response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
        chunks = self._chunks if self._chunks is not None else self.backend.chunks(reply)
        last = self._first
        with suppress(ConnectionError):
            await response.prepare(request)
            try:
                async with aclosing(chunks):
                    if self._first:
                        await self._write(request, response, self._first)
                    async for chunk in chunks:
                        await self._write(request, response, chunk)
                        last = chunk
            except BackendDown as error:
                self.broken = error
                await self._break_off(request, response, last, error)
                return response
            await response.write_eof()
        return response

    async def whole(self, limit: int, within_s: float) -> web.Response:
        """Return it as a whole, as far as ``limit`` bytes and ``within_s`` go: an answer to keep for later."""
        body = bytearray(self._first)
        chunks = self._chunks if self._chunks is not None else self.backend.chunks(self.reply)
        with suppress(TimeoutError, BackendDown):
            async with asyncio.timeout(within_s), aclosing(chunks):
                async for chunk in chunks:
                    body += chunk
                    if len(body) >= limit:
                        break
        headers = handed_back(self.reply.headers)
        for name in ("Content-Length", "Content-Encoding") if len(body) >= limit else ("Content-Length",):
            headers.pop(name, None)
        return web.Response(status=self.reply.status, reason=self.reply.reason, headers=headers, body=bytes(body))

    async def _write(self, request: web.Request, response: web.StreamResponse, chunk: bytes) -> None:
        self.watch(chunk)
        transport = request.transport
        if transport is None or (len(chunk) < _SMALL and not transport.get_write_buffer_size()):
            await response.write(chunk)  # all before it has gone out: there is nothing to wait for
            return
        try:
            async with asyncio.timeout(_STUCK_S):
                await response.write(chunk)
        except TimeoutError:  # who does not read must not keep an Ollama from others
            raise ConnectionAbortedError(f"nothing was read for {_STUCK_S:g} s") from None

    async def _break_off(
        self, request: web.Request, response: web.StreamResponse, last: bytes, error: BackendDown
    ) -> None:
        """Say what happened in the face's own shape where the answer is lines or events, and end without an end."""
        said = error_body(request.rel_url.path_safe, 502, str(error))
        kind, whole = self.reply.content_type, "Content-Length" in self.reply.headers
        if kind == _LINES and last[-1:] in (b"\n", b"") and not whole:
            await response.write(compact(said).encode() + b"\n")
            await _end_badly(request)
        elif kind == _EVENTS and not whole:
            event = "event: error\n" if request.rel_url.path_safe == "/v1/messages" else ""
            gap = "" if last.endswith(b"\n\n") else "\n\n"
            await response.write(f"{gap}{event}data: {json.dumps(said)}\n\n".encode())
            await _end_badly(request)
        elif request.transport is not None:
            request.transport.abort()


async def _end_badly(request: web.Request) -> None:
    """Close the connection once what was written is out, without the end that a whole answer has (RFC 9112 §7.1)."""
    transport = request.transport
    if transport is None:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(_FLUSH_S):
            while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)
    transport.close()
