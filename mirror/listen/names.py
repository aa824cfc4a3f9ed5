"""Which hosts are answered here, which CONNECT may lead on to, and which names a certificate may be for."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import urlsplit

from yarl import URL

from mirror.config import Settings
from mirror.config.kinds import split_address

OLLAMAS = "registry.ollama.ai"
"""The registry that every Ollama asks unless told otherwise; a CA may always speak for it."""
_HTTPS = "443"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_AUTHORITY = re.compile(rf"(\[[0-9A-Fa-f:.]{{2,45}}\]|{_LABEL}(?:\.{_LABEL})*\.?)(?::(\d{{1,5}}))?", re.ASCII)
_LONGEST = 300
_USUAL = frozenset({80, 443})


@dataclass(frozen=True, slots=True)
class Names:
    """Host names in lower case and addresses as text; ``mirrored`` are the upstream's, ``own`` the mirror's.

    ``ports`` are those by which clients may call it, besides the one that a connection came in at; ``mirrored_ports``
    are those of the upstreams.
    """

    mirrored: frozenset[str]
    own: frozenset[str]
    ports: frozenset[int] = _USUAL
    mirrored_ports: frozenset[int] = _USUAL

    @classmethod
    def of(cls, settings: Settings) -> "Names":
        """Gather them from the settings and the name of this machine."""
        hosts = [settings.server.host, *(split_address(one)[0] for one in settings.listen.addresses)]
        own = {plain_host(one) for one in hosts if not _is_every_address(one)}
        own |= {plain_host(socket.gethostname()), "localhost"}
        if settings.server.public_url:
            own.add(plain_host(urlsplit(settings.server.public_url).hostname or ""))
        own |= {plain_host(_without_port(one)) for one in settings.server.names}
        hosts = [settings.upstream.host, *(host for one in settings.upstreams for host in one.hosts)]
        mirrored = {plain_host(_without_port(one)) for one in hosts} | {
            plain_host(urlsplit(settings.upstream.url).hostname or "")
        }
        ports = _USUAL | _ports(settings.server.names, settings.server.public_url, settings.listen.addresses)
        return cls(
            frozenset(mirrored) - {""},
            frozenset(own) - {""},
            ports | {settings.server.port},
            _USUAL | _ports(hosts, settings.upstream.url),
        )

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

    def calls(self, authority: str, here: tuple[str, int], default_port: int) -> bool:
        """Say whether a host with a port is one by which clients call the mirror, and not somebody else's.

        ``here`` is the address and port at which the request came in. Another port of the mirror's machine is another
        program's, unless the settings name it; those below 1024 are root's to give.
        """
        found = authority_of(authority)
        if found is None:
            return False
        host, port = found[0], found[1] or default_port
        if self.mirrors(host) and (port == here[1] or port in self.mirrored_ports):
            return True
        return self.owns(host, here[0]) and (port == here[1] or port in self.ports)


def _ports(hosts: Iterable[str], url: str | None, addresses: Iterable[str] = ()) -> frozenset[int]:
    """The ports that settings name."""
    named = (authority_of(one) for one in hosts)
    said = [one[1] or 0 for one in named if one is not None] + [split_address(one)[1] for one in addresses]
    return frozenset([*said, urlsplit(url).port or 0 if url else 0]) - {0}


@lru_cache(maxsize=1024)
def authority_of(text: str) -> tuple[str, int | None] | None:
    """Return host and port of a Host header (RFC 9110 §7.2); None where it is none that can be made an address of."""
    match = _AUTHORITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    try:
        if match[1].startswith("["):
            ipaddress.IPv6Address(match[1][1:-1])
        usable = URL.build(scheme="http", authority=text).host
    except ValueError:  # UnicodeError is one: letters that no name can have
        return None
    port = int(match[2]) if match[2] else None
    return (match[1].lower(), port) if usable and (port is None or 0 < port < 65536) else None


def _without_port(host: str) -> str:
    """A host of the settings without its port."""
    return host.rpartition(":")[0] or host


@lru_cache(maxsize=1024)
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
