"""Which hosts are answered here, which CONNECT may lead on to, and which names a certificate may be for."""

import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from mirror.config import Settings
from mirror.config.kinds import split_address

OLLAMAS = "registry.ollama.ai"
"""The registry that every Ollama asks unless told otherwise; a CA may always speak for it."""
_HTTPS = "443"


@dataclass(frozen=True, slots=True)
class Names:
    """Host names in lower case and addresses as text; ``mirrored`` are the upstream's, ``own`` the mirror's."""

    mirrored: frozenset[str]
    own: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> "Names":
        """Gather them from the settings and the name of this machine."""
        hosts = [settings.server.host, *(split_address(one)[0] for one in settings.listen.addresses)]
        own = {plain_host(one) for one in hosts if not _is_every_address(one)}
        own |= {plain_host(socket.gethostname()), "localhost"}
        if settings.server.public_url:
            own.add(plain_host(urlsplit(settings.server.public_url).hostname or ""))
        own |= {plain_host(_bare(one)) for one in settings.server.names}
        hosts = [settings.upstream.host, *(host for one in settings.upstreams for host in one.hosts)]
        mirrored = {plain_host(_bare(one)) for one in hosts} | {
            plain_host(urlsplit(settings.upstream.url).hostname or "")
        }
        return cls(frozenset(mirrored) - {""}, frozenset(own) - {""})

    def answers(self, host: str, here: str) -> bool:
        """Say whether a request for ``host`` that came in at the address ``here`` is answered by the mirror."""
        return self.mirrors(host) or self.owns(host, here)

    def mirrors(self, host: str) -> bool:
        """Say whether ``host`` is one that the mirror stands in for."""
        return plain_host(host) in self.mirrored

    def owns(self, host: str, here: str) -> bool:
        """Say whether ``host`` is the mirror itself, for one who reached it at the address ``here``."""
        name = plain_host(host)
        return name in self.own or name == plain_host(here) or is_loopback(name)


def _bare(host: str) -> str:
    """A host of the settings without its port."""
    return host.rpartition(":")[0] or host


def plain_host(host: str) -> str:
    """A host as it is compared: in lower case, without brackets, zone or final dot; an address in one spelling."""
    name = host.strip("[]").partition("%")[0].lower().rstrip(".")
    with suppress(ValueError):
        ip = ipaddress.ip_address(name)
        return str(getattr(ip, "ipv4_mapped", None) or ip)
    return name


def tunnel_pattern(patterns: Iterable[str], host: str, port: int) -> str | None:
    """Return the pattern of ``listen.tunnel`` that lets CONNECT lead to ``host``; None where none does.

    ``host`` alone means its port 443, ``host:*`` any port. One without a wildcard stands for the host whatever its
    address is; the caller lets others lead to public addresses only.
    """
    name = plain_host(host)
    for pattern in patterns:
        named, colon, ports = pattern.rpartition(":")
        if not colon or pattern.endswith("]"):
            named, ports = pattern, _HTTPS
        if fnmatchcase(name, plain_host(named)) and ports in ("*", str(port)):
            return plain_host(named)
    return None


def is_literal(pattern: str) -> bool:
    """Say whether a pattern names one host."""
    return not set("*?[") & set(pattern)


def own_addresses() -> frozenset[str]:
    """Return the addresses by which this machine is known to itself and to its network; sends nothing."""
    found = {"127.0.0.1", "::1"}
    with suppress(OSError, UnicodeError):
        found |= {plain_host(str(one[4][0])) for one in socket.getaddrinfo(socket.gethostname(), None)}
    # A datagram socket that is connected says which address it would send from (documentation addresses, RFC 5737
    # and RFC 3849).
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((far, 9))
            found.add(plain_host(asked.getsockname()[0]))
    return frozenset(one for one in found if not ipaddress.ip_address(one).is_link_local)


def _is_every_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(plain_host(host)).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Say whether a host is an address of the machine's own that nobody else can reach; a name is none."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
