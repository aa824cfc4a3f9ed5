"""TLS on a socket that has been accepted, with less memory per connection than asyncio takes."""

import asyncio
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from math import ceil

_CLOSE_NOTIFY_S = 2


class _Sealed(SSLProtocol):
    """asyncio's TLS with a buffer in which two records fit (RFC 8446 §5.1), instead of a quarter of a megabyte.

    The buffer is there from the first byte of a handshake on: four thousand that stay half done would take a
    gigabyte. It is read into only; clients of a registry send little.
    """

    max_size = 32 << 10


async def sealed(
    sock: socket.socket, protocol: asyncio.Protocol, context: ssl.SSLContext, handshake_timeout_s: float
) -> None:
    """Shake hands, then connect ``protocol``; the socket is the transport's, which closes it whatever happens.

    ``loop.connect_accepted_socket(ssl=...)`` does the same with asyncio's own buffer. Raises OSError where there is no
    handshake (SSLError is one).
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    layer = _Sealed(
        loop,
        protocol,
        context,
        done,
        server_side=True,
        ssl_handshake_timeout=ceil(handshake_timeout_s),  # the caller's own, to the fraction, comes first
        ssl_shutdown_timeout=_CLOSE_NOTIFY_S,
    )
    transport, _ = await loop.connect_accepted_socket(lambda: layer, sock)
    try:
        await done
    except BaseException:
        transport.abort()
        raise
