"""Bytes from a descriptor to a client by sendfile: they never pass through the program."""

import asyncio
import os

from aiohttp import web

from mirror.values import ByteRange


async def send(request: web.Request, fd: int, span: ByteRange) -> None:
    """Send ``span`` of the open file ``fd`` after a response's head has gone out.

    Raises:
        ConnectionError: the client has left.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has left")
    with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
        try:
            sent = await asyncio.get_running_loop().sendfile(transport, file, span.start, len(span), fallback=False)
        except (
            asyncio.SendfileNotAvailableError
        ) as error:  # what asyncio calls a connection broken before the first byte
            raise ConnectionResetError("the client has left") from error
    if sent != len(span):
        raise ConnectionResetError(f"sent {sent} of {len(span)} bytes")


def cut(request: web.Request) -> None:
    """End the connection at once: an error body in the middle of a blob would become part of it."""
    if request.transport is not None:
        request.transport.abort()
