"""The door: takes connections, tells them apart by their first bytes, and hands them to the application."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from mirror.config import Settings
from mirror.config.kinds import split_address
from mirror.errors import SettingsError
from mirror.listen.certificates import Certificates
from mirror.listen.data import DataAddress
from mirror.listen.guests import Guest, Guests
from mirror.listen.names import Names, is_loopback, plain_host
from mirror.listen.opening import Way, head_of, way_of
from mirror.listen.seal import sealed
from mirror.listen.sockets import listening, room_for
from mirror.listen.targets import BadTarget, Target
from mirror.listen.tunnel import NotTunnelled, Tunnels
from mirror.listen.visitor import Visitor

log = structlog.get_logger(__name__)

_NEVER_READS_S = 600
"""A client that takes no byte of its answer for so long is cut off, as is one that has vanished."""
_PAUSE_S = 0.5
_SAY_EVERY_S = 60.0
_AT_ONCE = 16
_HANDSHAKES = 512
"""Handshakes at once, of which each takes 150 kB; above, the one that has gone on for longest makes room."""
_HTTP = 80
_LINGER_S = 1.0
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_NO_HANDSHAKE = b"\x15\x03\x01\x00\x02\x02\x28"  # a fatal alert, handshake_failure (RFC 8446 §6)
_NO_CA = (
    "this mirror has no certificate for {host}: run mirror tls init on it, or mirror tls renew if it has a CA, "
    "and mirror tls trust for what comes next"
)


class Door:
    """Listens on every address and owns each connection until aiohttp or a tunnel has it.

    Used as a context manager around the runner's life: after ``close`` nobody is let in, and on the way out tunnels
    have the rest of ``server.shutdown`` to end. ``server`` is the runner's, set up.
    """

    def __init__(
        self,
        settings: Settings,
        names: Names,
        certificates: Certificates,
        data: DataAddress,
        is_public: Callable[[str], bool],
    ) -> None:
        self._settings = settings.listen
        self._shutdown_s = settings.server.shutdown
        self._addresses = [split_address(one) for one in settings.listen.addresses]
        self._key = "listen.addresses" if self._addresses else "server.port"
        self._addresses = self._addresses or [(settings.server.host, settings.server.port)]
        self._data_address = [split_address(one) for one in (settings.listen.data,) if one is not None]
        self._data = data
        self._names = names
        self._certificates = certificates
        self._tunnels = Tunnels(settings.listen.tunnel, is_public)
        self._guests = Guests(room_for(settings.listen.max_connections))
        self._handshakes = Guests(_HANDSHAKES)
        self._listeners: list[socket.socket] = []
        self._before: set[asyncio.Task[None]] = set()
        self._tunnelling: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._server: web.Server
        self._said_at = -_SAY_EVERY_S
        self._closed_at = 0.0

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where it listens, with the ports that the system chose; not where the bytes of blobs are given."""
        return [one.getsockname()[:2] for one in self._listeners if one.getsockname()[1] != self._data.port]

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._guests)

    async def open(self, server: web.Server) -> None:
        """Listen, handing what comes to ``server``. Raises SettingsError."""
        self._listeners = await listening(self._addresses, self._key)
        try:
            await self._open_data([one.getsockname()[1] for one in self._listeners])
        except BaseException:
            self.close()
            raise
        self._server = server
        for listener in self._listeners:
            self._own(self._accept(listener), self._before)

    async def _open_data(self, others: Sequence[int]) -> None:
        for host, port in self._data_address:
            if port in others:
                raise SettingsError("listen.data", f"must have a port of its own, not {port}", "settings")
            data = await listening([(host, port)], "listen.data")
            self._data.port = data[0].getsockname()[1]
            self._listeners += data

    def close(self) -> None:
        """Listen no more; connections that have not said what they are end, tunnels end once nothing moves."""
        self._closed_at = self._closed_at or time.monotonic()
        for task in self._before:
            task.cancel()
        for listener in self._listeners:
            listener.close()
        self._tunnels.close()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()
        try:
            if error is None and self._tunnelling:
                left = max(self._closed_at + self._shutdown_s - time.monotonic(), 0)
                await asyncio.wait(self._tunnelling, timeout=left)
        finally:
            for task in self._tunnelling:
                task.cancel()
            await self._group.__aexit__(kind, error, at)

    def _own(self, work: "asyncio._CoroutineLike[None]", among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        """Take connections as they come, for ever."""
        loop, taken = asyncio.get_running_loop(), 0
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except ConnectionError:  # it left before we came to it
                await asyncio.sleep(0)
                continue
            except OSError as error:  # no descriptors or memory left: whoever ends gives some back
                self._say("cannot take connections", problem=error.strerror)
                await asyncio.sleep(_PAUSE_S)
                continue
            self._take(sock)
            taken += 1
            if taken % _AT_ONCE == 0:
                await asyncio.sleep(0)  # a flood of connections is always ready: let others go on between

    def _take(self, sock: socket.socket) -> None:
        guest = Guest()
        if not self._guests.admit(guest):
            self._say("too many connections", most=len(self._guests))
            sock.close()
            return
        guest.leave = self._own(self._welcome(sock, guest), self._before).cancel

    async def _welcome(self, sock: socket.socket, guest: Guest) -> None:
        """Find out what a connection is and hand it on; whatever becomes of it, socket and guest are not forgotten."""
        owned = _Owned(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _NEVER_READS_S * 1000)
            async with asyncio.timeout(self._settings.head_timeout) as limit:
                way, taken = await way_of(sock)
                if way is Way.CONNECT:
                    await self._connect(owned, guest, taken, limit)
                else:
                    await self._hand_over(owned, guest, way, taken, _here(sock))
        except (TimeoutError, OSError):  # SSLError is one; a slow, broken or hostile client is no news
            pass
        except Exception:  # the edge of a connection: the others go on
            log.exception("connection failed")
        finally:
            if owned.mine:
                sock.close()
            if not owned.handed:
                self._guests.gone(guest)

    async def _hand_over(
        self, owned: "_Owned", guest: Guest, way: Way, taken: bytes, name: str, *, proxied: bool = False
    ) -> None:
        """Give a connection to aiohttp, by TLS if that is its way; ``name`` is for a client that says none."""
        sock, context = owned.sock, None
        if way is Way.TLS:
            context = await self._certificates.context(name, _here(sock))
            if context is None:
                await asyncio.get_running_loop().sock_sendall(sock, _NO_HANDSHAKE)
                return
        visitor = Visitor(self._server, self._settings, self._guests, guest, taken, proxied=proxied)
        owned.mine = False  # the transport's from here on, which closes it if the handshake fails
        if context is None:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: visitor, sock)
        else:
            self._handshakes.admit(guest)
            try:
                await sealed(sock, visitor, context, self._settings.head_timeout)
            finally:
                self._handshakes.gone(guest)
        owned.handed = True

    async def _connect(self, owned: "_Owned", guest: Guest, taken: bytes, limit: asyncio.Timeout) -> None:
        """Answer CONNECT: here, if the host is one of ours, else by a tunnel or a sentence."""
        sock = owned.sock
        try:
            target = Target.parse(await head_of(sock, taken, self._settings.max_head))
            if not self._is_ours(target, _here(sock)):
                there = await self._tunnels.reach(target)
                with there:
                    self._lead_away(there)
                    limit.reschedule(None)
                    await self._tunnel(sock, there, guest)
                return
        except BadTarget as error:
            await _refuse(sock, "400 Bad Request", str(error))
            return
        except NotTunnelled as error:
            await _refuse(sock, error.status, str(error))
            return
        if target.port != _HTTP and not await self._certificates.speaks_for(target.host, _here(sock)):
            await _refuse(sock, "403 Forbidden", _NO_CA.format(host=target.host))
            return
        await asyncio.get_running_loop().sock_sendall(sock, _ESTABLISHED)
        way, taken = await way_of(sock)
        way = Way.PLAIN if way is Way.CONNECT else way
        await self._hand_over(owned, guest, way, taken, target.host, proxied=True)

    def _is_ours(self, target: Target, here: str) -> bool:
        """Whether CONNECT ends here: at a mirrored host or the mirror itself, unless a tunnel there is listed."""
        return self._names.answers(target.host, here) and not self._tunnels.lists(target)

    def _lead_away(self, there: socket.socket) -> None:
        """Raise NotTunnelled where a tunnel has come back to us: its client would count as one of this machine."""
        host, port = there.getpeername()[:2]
        local = host == there.getsockname()[0] or is_loopback(plain_host(host))
        if local and port in [one.getsockname()[1] for one in self._listeners]:
            raise NotTunnelled("403 Forbidden", "a tunnel cannot lead back to the mirror itself")

    async def _tunnel(self, sock: socket.socket, there: socket.socket, guest: Guest) -> None:
        if (task := asyncio.current_task()) is not None:
            # It is no longer among those that ``close`` ends at once.
            self._before.discard(task)
            self._tunnelling.add(task)
            task.add_done_callback(self._tunnelling.discard)
        self._guests.busy(guest)
        await asyncio.get_running_loop().sock_sendall(sock, _ESTABLISHED)
        await self._tunnels.carry(sock, there)

    def _say(self, event: str, **fields: object) -> None:
        """Log what a flood would repeat, once a minute at most."""
        if time.monotonic() - self._said_at >= _SAY_EVERY_S:
            self._said_at = time.monotonic()
            log.warning(event, **fields)


class _Owned:
    """A socket; whether it is still ours to close, and whether a visitor has taken over all of it."""

    __slots__ = ("handed", "mine", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.mine = True
        self.handed = False


def _here(sock: socket.socket) -> str:
    return str(sock.getsockname()[0])


async def _refuse(sock: socket.socket, status: str, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    loop = asyncio.get_running_loop()
    with suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(_LINGER_S):
            await loop.sock_sendall(sock, f"{head}Connection: close\r\n\r\n".encode() + body)
            sock.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(sock, 1 << 16):
                pass  # to close on bytes not read would take the answer back (RFC 9112 §9.6)
