"""A tunnel: bytes both ways between two sockets, unread, until both sides have ended or neither moves."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

from mirror.listen.names import is_literal, tunnel_pattern
from mirror.listen.targets import Target

_PIECE = 1 << 16
_IDLE_S = 600.0
_LAST_S = 1.0
_CONNECT_S = 10.0


class NotTunnelled(Exception):
    """CONNECT leads nowhere; ``status`` is HTTP's and the text a sentence for a person."""

    def __init__(self, status: str, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


class Tunnels:
    """The tunnels that are open. ``is_public`` says of an address whether a pattern with a wildcard may lead there."""

    def __init__(self, patterns: Iterable[str], is_public: Callable[[str], bool], *, idle_s: float = _IDLE_S) -> None:
        self._patterns = tuple(patterns)
        self._is_public = is_public
        self._idle_s = idle_s
        self._open: set[asyncio.Timeout] = set()

    def lists(self, target: Target) -> bool:
        """Say whether a tunnel to this very host is listed, without a wildcard."""
        pattern = tunnel_pattern(self._patterns, target.host, target.port)
        return pattern is not None and is_literal(pattern)

    async def reach(self, target: Target) -> socket.socket:
        """Connect to where a tunnel is to lead; the caller closes it. Raises NotTunnelled."""
        pattern = tunnel_pattern(self._patterns, target.host, target.port)
        if pattern is None:
            where = f"{target.host} port {target.port}"
            raise NotTunnelled("403 Forbidden", f"{where} is not mirrored here, and not in listen.tunnel")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
                return await self._first_of(found, anywhere=is_literal(pattern))
        except (OSError, UnicodeError) as error:  # TimeoutError is one
            said = getattr(error, "strerror", None) or "no answer"
            raise NotTunnelled("502 Bad Gateway", f"{target.host} cannot be reached: {said}") from error

    async def _first_of(
        self, found: Iterable[tuple[int, int, int, str, tuple[object, ...]]], *, anywhere: bool
    ) -> socket.socket:
        """Connect to the first address that answers. It is the address looked at that is connected to, not the name."""
        last: OSError | None = None
        refused = False
        for family, kind, proto, _, address in found:
            if not (anywhere or self._is_public(str(address[0]))):
                refused = True
                continue
            there = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, proto)
            try:
                await asyncio.get_running_loop().sock_connect(there, address)
            except BaseException as error:
                there.close()
                if not isinstance(error, OSError):
                    raise
                last = error
                continue
            return there
        if refused:
            sentence = "a wildcard of listen.tunnel leads to public addresses only; name the host itself"
            raise NotTunnelled("403 Forbidden", sentence)
        raise last or OSError("no address")

    async def carry(self, here: socket.socket, there: socket.socket) -> None:
        """Carry bytes both ways until both sides have ended or one has broken. The caller closes both.

        Raises TimeoutError where neither side has moved a byte for long, or, after ``close``, for a moment.
        """
        with suppress(OSError):
            there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(self._idle_s) as limit:
            self._open.add(limit)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._one_way(here, there, limit))
                    group.create_task(self._one_way(there, here, limit))
            except* OSError:
                pass  # one side broke: so the tunnel has ended
            finally:
                self._open.discard(limit)

    async def _one_way(self, source: socket.socket, sink: socket.socket, limit: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        piece = memoryview(bytearray(_PIECE))
        while count := await loop.sock_recv_into(source, piece):
            limit.reschedule(loop.time() + self._idle_s)
            await loop.sock_sendall(sink, piece[:count])
            limit.reschedule(loop.time() + self._idle_s)
            await asyncio.sleep(0)  # a fast pair would keep the loop to itself
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)  # half a tunnel stays open (RFC 9110 §9.3.6)

    def close(self) -> None:
        """From now on tunnels end in which no byte moves for a moment."""
        self._idle_s = _LAST_S
        for limit in self._open:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + _LAST_S)
