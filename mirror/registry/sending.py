"""Bytes from a descriptor to a client: by sendfile, so that they never pass through the program, unless TLS asks it."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiohttp import web

from mirror.registry.senders import Senders
from mirror.values import ByteRange

SENT = web.RequestKey("mirror_sent", int)
"""Key of a request under which the count of body bytes sent past aiohttp is kept, for the access log."""
_STEP = 4 << 20
"""Bytes given to one system call, so that a fast client does not hold up the loop for the others."""
_AHEAD = 8 << 20
_PIECE = 256 << 10
"""Bytes read, encrypted and handed to a TLS connection at once; what it buffers besides is asyncio's to bound."""


class Sender:
    """Sends ranges of open files on a request's connection, once the head of the response has gone out.

    Used as a context manager. ``senders`` do most of what is long, where there are any. It has a descriptor of its
    own for the socket, because asyncio keeps that of a transport to itself; ``loop.sendfile`` would do the same work
    with a dozen calls more for every range. ``moved`` hears of the bytes the system has taken; of those on a TLS
    connection, once they are encrypted and no more of them wait than asyncio lets wait.
    """

    def __init__(self, request: web.Request, senders: Senders, moved: Callable[[int], None]) -> None:
        self._request = request
        self._senders = senders
        self._moved = moved
        self._fd = -1
        self._sealed: asyncio.Transport | None = None

    async def _start(self) -> None:
        """Wait until what aiohttp wrote has left."""
        transport = self._request.transport
        if not isinstance(transport, asyncio.Transport) or transport.is_closing():
            raise ConnectionResetError("the client has left")
        if transport.get_extra_info("sslcontext") is not None:
            self._sealed = transport
            return
        transport.set_write_buffer_limits(0)
        await self._request.writer.drain()
        if transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._fd = os.dup(transport.get_extra_info("socket").fileno())

    async def send(self, fd: int, span: ByteRange) -> None:
        """Send ``span`` of the open file ``fd``. Raises ConnectionError when the client has left."""
        if self._fd < 0:
            if self._sealed is None:
                await self._start()
            if self._sealed is not None:
                await self._write(self._sealed, fd, span)
                return
        at = await self._senders.send(self._fd, fd, span, self._moved)
        while at < span.stop:
            try:
                count = os.sendfile(self._fd, fd, at, min(_STEP, span.stop - at))
            except BlockingIOError:
                os.posix_fadvise(fd, at, _AHEAD, os.POSIX_FADV_WILLNEED)  # so that the next call need not wait for it
                await self._writable()
                continue
            if count == 0:
                raise ConnectionResetError("the file ended early")
            at += count
            self._moved(count)
            if count == _STEP:
                await asyncio.sleep(0)

    async def _write(self, transport: asyncio.Transport, fd: int, span: ByteRange) -> None:
        at = ahead = span.start
        while at < span.stop:
            if at >= ahead:
                ahead += _AHEAD
                os.posix_fadvise(fd, ahead - _AHEAD, 2 * _AHEAD, os.POSIX_FADV_WILLNEED)
            piece = os.pread(fd, min(_PIECE, span.stop - at), at)
            if not piece:
                raise ConnectionResetError("the file ended early")
            transport.write(piece)
            await self._request.writer.drain()
            if transport.is_closing():
                raise ConnectionResetError("the client has left")
            at += len(piece)
            self._moved(len(piece))
            await asyncio.sleep(0)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(self._fd, _set, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _set(ready: asyncio.Future[None]) -> None:
    with suppress(asyncio.InvalidStateError):
        ready.set_result(None)


def cut(request: web.Request) -> None:
    """End the connection at once: an error body in the middle of a blob would become part of it."""
    if request.transport is not None:
        request.transport.abort()
