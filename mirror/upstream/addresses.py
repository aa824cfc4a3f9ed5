"""Which addresses an upstream may send us to."""

import asyncio
import ipaddress
import socket

from mirror.config import PrivateRedirects
from mirror.errors import ForbiddenAddress, UpstreamUnavailable


def is_public(address: str) -> bool:
    """Say whether an IP address (text, with or without a zone) is one of the public internet's."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast


async def addresses_of(host: str, port: int) -> list[str]:
    """Resolve a host name. Raises UpstreamUnavailable."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UpstreamUnavailable(f"{host}: {error.strerror or error}") from error
    return [str(sockaddr[0]) for *_, sockaddr in found]


class Guard:
    """Keeps a public upstream from sending the mirror to machines only the mirror can see (SSRF).

    Asked twice: when a redirect is followed, and, because a name can resolve to something else a moment later,
    with the address a connection really has.
    """

    def __init__(self, mode: PrivateRedirects, host: str, port: int, *, proxied: bool) -> None:
        self._mode = mode
        self._host = host
        self._port = port
        self._proxied = proxied
        self._refuses: bool | None = {PrivateRedirects.ALLOW: False, PrivateRedirects.REFUSE: True}.get(mode)

    async def check(self, host: str, port: int) -> None:
        """Raise ForbiddenAddress where a redirect to ``host`` must not be followed."""
        if not await self._active():
            return
        literal = _literal(host)
        for address in [literal] if literal else [] if self._proxied else await addresses_of(host, port):
            self.check_peer(address)

    def check_peer(self, address: str) -> None:
        """Raise ForbiddenAddress if this peer is none we may be sent to. Any thread."""
        if self._refuses and not is_public(address):
            raise ForbiddenAddress(f"{self._host} redirects to {address}, which is no public address; refused")

    async def _active(self) -> bool:
        """Whether there is anything to refuse: once known, for good. Through a proxy names are not ours to resolve."""
        if self._refuses is None:
            literal = _literal(self._host)
            if literal:
                self._refuses = is_public(literal)
            elif self._proxied:
                self._refuses = True
            else:
                self._refuses = all(map(is_public, await addresses_of(self._host, self._port)))
        return self._refuses


def _literal(host: str) -> str | None:
    bare = host.strip("[]")
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return "127.0.0.1" if bare.lower().rstrip(".") == "localhost" else None
    return bare
