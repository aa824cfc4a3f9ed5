"""Who asks: the address a request comes from, and whether it comes from this machine."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from aiohttp import web

from mirror.access.key import ANONYMOUS
from mirror.access.scopes import Scope

_FORWARDED = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Server",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
)
"""What proxies add. Looked at for connections from this machine only."""
_PORT = re.compile(r"\[(.+)\](?::\d+)?|([\d.]+):\d+", re.ASCII)

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``address`` is an IP address in one spelling, or what the transport says where that is none.

    ``key_id`` is None for who shows nothing that is believed; its user is then ``anonymous`` and it has no scopes of
    its own. ``secure``: came by TLS, to us or to a proxy that is trusted. ``local``: from this machine, and not by way
    of a proxy on it. ``by_ticket``: what it shows is a ticket, and no key or token. ``vouched``: what its headers say
    of its user is believed, for it is on this machine, or comes by way of a proxy that is trusted.
    """

    address: str
    user: str = ANONYMOUS
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset()
    secure: bool = False
    local: bool = False
    by_ticket: bool = False
    vouched: bool = False

    @property
    def who(self) -> str:
        """What a wish of the caller is counted under: its user, or the address of one that nobody knows."""
        return self.user if self.user != ANONYMOUS else self.address


CALLER = web.RequestKey("mirror_caller", Caller)
"""Where the gate puts the caller of a request, for every face below it."""


@dataclass(eq=False, slots=True)
class Rights:
    """What the caller of a request may beyond what the route of it needs; ``decide`` is the gate's."""

    decide: "Callable[[web.Request, Scope, Caller], web.Response | None]"
    request: web.Request
    caller: Caller

    def refusal(self, scope: Scope) -> web.Response | None:
        """Return None where the caller may, or the answer to give."""
        return self.decide(self.request, scope, self.caller)


RIGHTS = web.RequestKey("mirror_rights", Rights)
"""Where the gate puts the rights of a request's caller."""


def user_of(request: web.Request) -> str:
    """Return the user of a request, whom the policy is asked about."""
    caller = request.get(CALLER)
    return ANONYMOUS if caller is None else caller.user


class Headers(Protocol):
    """What is asked of a request's headers."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """Return every value of a header."""

    def __contains__(self, key: object, /) -> bool: ...


class Whereabouts:
    """Finds out where a request comes from, by its peer and by what trusted proxies say (``security.trusted_proxies``).

    What cannot be understood in a header is not believed: the last address that is sure stands for the client.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted: tuple[_Network, ...] = tuple(map(ipaddress.ip_network, trusted))

    def of(self, peer: str | None, headers: Headers, *, tls: bool) -> Caller:
        """Return the caller of a request, of whom nothing is known yet but where it is."""
        plain, loopback = _known(peer or "")
        if not self._trusts(plain):
            # A proxy on this very machine that nobody told us of must not make the whole network local.
            return _caller(plain, tls, loopback and not any(name in headers for name in _FORWARDED))
        said = headers.getall("X-Forwarded-For", [])
        proto = headers.getall("X-Forwarded-Proto", [])
        secure = proto[-1].rpartition(",")[2].strip().lower() == "https" if proto else tls
        local = loopback and not any(name in headers for name in _FORWARDED)
        address = self._behind(plain, ",".join(said)) if said else plain
        return Caller(address, secure=secure, local=local, vouched=True)

    def _behind(self, address: str, said: str) -> str:
        """Walk from the nearest proxy outwards while they are trusted."""
        for one in reversed(said.split(",")):
            found = _parsed(_without_port(one.strip()))
            if found is None:
                return address
            address = str(found)
            if not self._trusts(address):
                return address
        return address

    def _trusts(self, address: str) -> bool:
        if not self._trusted:
            return False
        found = _parsed(address)
        return found is not None and any(found in network for network in self._trusted)


@lru_cache(maxsize=4096)
def _caller(address: str, secure: bool, local: bool) -> Caller:
    return Caller(address, secure=secure, local=local, vouched=local)


@lru_cache(maxsize=4096)
def _known(peer: str) -> tuple[str, bool]:
    found = _parsed(peer)
    return (str(found), found.is_loopback) if found is not None else (peer, False)


def _parsed(text: str) -> _Address | None:
    """Read an address: without its zone, and an IPv4 address within an IPv6 one as what it is (RFC 4291 §2.5.5.2)."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _without_port(text: str) -> str:
    match = _PORT.fullmatch(text)
    return (match[1] or match[2]) if match else text
