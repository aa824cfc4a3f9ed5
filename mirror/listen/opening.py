"""The first bytes of a connection: read so far as tells what it is, and no further."""

import asyncio
import socket
from enum import Enum
from typing import Final

from mirror.listen.targets import BadTarget

_CONNECT: Final = b"CONNECT "
_HANDSHAKE: Final = 0x16  # the content type of a TLS record that holds a ClientHello (RFC 8446 §5.1)
_END: Final = b"\r\n\r\n"
_PEEK: Final = 4096


class Way(Enum):
    """What a connection begins with."""

    PLAIN = "plain HTTP"
    TLS = "TLS"
    CONNECT = "CONNECT"


async def way_of(sock: socket.socket) -> tuple[Way, bytes]:
    """Say what a connection begins with, and return the bytes that had to be taken from it to know.

    A handshake is left in the socket whole, for TLS to read; of a request at most the letters that begin CONNECT are
    taken, so that nothing is looked at twice however slowly they come. Raises ConnectionError when it ends before.
    """
    taken = b""
    while True:
        seen = await _peeked(sock, len(_CONNECT) - len(taken))
        if not taken and seen[0] == _HANDSHAKE:
            return Way.TLS, b""
        if not _CONNECT.startswith(taken + seen):
            return Way.PLAIN, taken
        taken += sock.recv(len(seen))
        if taken == _CONNECT:
            return Way.CONNECT, taken


async def head_of(sock: socket.socket, taken: bytes, most: int) -> bytes:
    """Return a request's head, of which ``taken`` was read before, up to the empty line; what follows stays unread.

    Raises:
        BadTarget: it is longer than ``most`` bytes.
        ConnectionError: the connection ended.
    """
    head = bytearray(taken)
    while True:
        seen = await _peeked(sock, _PEEK)
        begun = max(len(head) - len(_END) + 1, 0)
        end = (head[begun:] + seen).find(_END)
        if end >= 0:
            return bytes(head + sock.recv(begun + end + len(_END) - len(head)))
        head += sock.recv(len(seen))
        if len(head) > most:
            raise BadTarget(f"the head of the request is longer than {most} bytes")


async def _peeked(sock: socket.socket, most: int) -> bytes:
    while True:
        try:
            seen = sock.recv(most, socket.MSG_PEEK)
        except BlockingIOError:
            await _readable(sock)
            continue
        if not seen:
            raise ConnectionResetError("the client has left")
        return seen


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    fd = sock.fileno()
    loop.add_reader(fd, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
