"""Listening sockets, and how many connections the descriptors of this process carry."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Iterable

from aiohttp import web

from mirror.errors import SettingsError

_BACKLOG = 1024
_PER_CONNECTION = 3
"""Descriptors a connection may have: its socket, a second one for sendfile, the blob."""
_OTHERS = 512
_LEAST = 16
_NO_SUCH = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def here_of(request: web.Request) -> tuple[str, int]:
    """Return the address and port of ours at which a request came in; nothing and 0 where its connection has gone."""
    said = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return (said[0], said[1]) if said else ("", 0)


async def listening(addresses: Iterable[tuple[str, int]], setting: str) -> list[socket.socket]:
    """Open what is listened on; ``setting`` is the key that names the addresses, for the error.

    A host name stands for all its addresses. Port 0 lets the system choose one for each. Raises SettingsError.
    """
    opened: list[socket.socket] = []
    try:
        for host, port in addresses:
            opened += await _listening_at(host, port, setting)
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


async def _listening_at(host: str, port: int, setting: str) -> list[socket.socket]:
    opened: list[socket.socket] = []
    absent: OSError | None = None
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, *_, address in dict.fromkeys(found):
            try:
                opened.append(_bound(family, address))
            except OSError as error:
                if error.errno not in _NO_SUCH:
                    raise
                absent = error  # "localhost" has an IPv6 address where the machine has none
        if not opened:
            raise absent or OSError(errno.EADDRNOTAVAIL, "")
    except (OSError, UnicodeError) as error:
        for one in opened:
            one.close()
        number = error.errno if isinstance(error, OSError) and not isinstance(error, socket.gaierror) else None
        said = os.strerror(number) if number else getattr(error, "strerror", None) or "no such host"
        raise SettingsError(setting, f"cannot listen on {host} port {port}: {said}", "settings") from error
    return opened


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def files_for(most: int) -> int:
    """Return how many open files so many connections may take, and all else of the mirror."""
    return most * _PER_CONNECTION + _OTHERS


def room_for(most: int) -> int:
    """Return how many connections there may be, at most ``most``, raising this process's limit of files for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_for(most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return most
    return max(min(most, (soft - _OTHERS) // _PER_CONNECTION), _LEAST)
