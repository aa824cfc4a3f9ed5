"""Which addresses an upstream may send us to."""

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Iterable

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from mirror.config import PrivateRedirects
from mirror.errors import ForbiddenAddress, UpstreamUnavailable

_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")
_MOST_HOSTS = 1000


def is_public(address: str) -> bool:
    """Say whether an IP address (text, with or without a zone) is one of the public internet's.

    An IPv6 address that leads to an IPv4 one (mapped, 6to4, NAT64) is what that is.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = (
            ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        )
        if inner is None:
            return ip in _UNICAST and ip.is_global
        ip = inner
    return ip.is_global and not ip.is_multicast and ip not in _PROTOCOLS


async def addresses_of(host: str, port: int) -> list[str]:
    """Resolve a host name. Raises UpstreamUnavailable."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UpstreamUnavailable(f"{host}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise UpstreamUnavailable(f"{host!r} is no host name") from error
    return [str(sockaddr[0]) for *_, sockaddr in found]


class Guard:
    """Keeps a public upstream from sending the mirror to machines only the mirror can see (SSRF).

    Asked twice: when a redirect is followed, and, because a name can resolve to something else a moment later,
    with the address a connection really has. The upstream's own host is the user's choice and never refused.
    """

    def __init__(self, mode: PrivateRedirects, host: str, port: int, *, proxied: bool) -> None:
        self._mode = mode
        self._host = host
        self._port = port
        self._proxied = proxied
        self._refuses: bool | None = {PrivateRedirects.ALLOW: False, PrivateRedirects.REFUSE: True}.get(mode)
        self._led_to: OrderedDict[str, None] = OrderedDict()

    async def check(self, host: str, port: int) -> None:
        """Raise ForbiddenAddress where a redirect to ``host`` must not be followed."""
        if not await self._active() or host == self._host:
            return
        literal = _literal(host)
        for address in [literal] if literal else [] if self._proxied else await addresses_of(host, port):
            self.check_peer(host, address)
        self._led_to[host] = None
        self._led_to.move_to_end(host)
        if len(self._led_to) > _MOST_HOSTS:
            self._led_to.popitem(last=False)

    def check_peer(self, host: str, address: str) -> None:
        """Raise ForbiddenAddress if ``host`` has an address that we may not be sent to. Any thread."""
        if self._refuses and host != self._host and not is_public(address):
            raise ForbiddenAddress(f"{self._host} redirects to {address}, which is no public address; refused")

    def check_resolved(self, host: str, address: str) -> None:
        """As ``check_peer``, for a name that is being connected to: only those that we were led to count."""
        if host in self._led_to:
            self.check_peer(host, address)

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


class GuardedResolver(AbstractResolver):
    """Resolves names as the system does, and has the guard look at what comes out."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._system = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError, ForbiddenAddress."""
        try:
            found = await self._system.resolve(host, port, family)
        except UnicodeError as error:
            raise OSError(f"{host!r} is no host name") from error
        for one in found:
            self._guard.check_resolved(host, one["host"])
        return found

    async def close(self) -> None:
        """Let go of the system's resolver."""
        await self._system.close()


class PublicAddresses(AbstractResolver):
    """Leads to the public internet only, and to ``hosts``, whatever addresses those have.

    Of what it resolves aiohttp connects to the very addresses that were looked at here, so that a name cannot lead
    elsewhere a moment later. A host that is an address is never resolved: have it ``check`` each that is asked for.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        """Of ``hosts`` some may have ports, with which alone they count."""
        self._hosts = frozenset(one.lower() for one in hosts)
        self._system = DefaultResolver()

    async def check(self, host: str, port: int) -> None:
        """Raise ForbiddenAddress where a host may not be led to, UpstreamUnavailable where it has no address."""
        if not self._listed(host, port):
            literal = _literal(host)
            for address in [literal] if literal else await addresses_of(host, port):
                _insist(host, address)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError, ForbiddenAddress."""
        try:
            found = await self._system.resolve(host, port, family)
        except UnicodeError as error:
            raise OSError(f"{host!r} is no host name") from error
        if not self._listed(host, port):
            for one in found:
                _insist(host, one["host"])
        return found

    async def close(self) -> None:
        """Let go of the system's resolver."""
        await self._system.close()

    def _listed(self, host: str, port: int) -> bool:
        return host.lower() in self._hosts or f"{host.lower()}:{port}" in self._hosts


def _insist(host: str, address: str) -> None:
    if not is_public(address):
        raise ForbiddenAddress(f"{host} is at {address}, which is no public address; refused")


def _literal(host: str) -> str | None:
    """The address that a host is without being resolved; ``127.1``, ``2130706433`` and ``0x7f.1`` are 127.0.0.1."""
    bare = host.strip("[]").rstrip(".").lower()
    if bare == "localhost" or bare.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(bare))
    except (OSError, UnicodeError):
        return None
