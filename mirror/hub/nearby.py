"""Hubs found on the network, and announced there: multicast DNS (RFC 6762) with DNS-SD (RFC 6763).

Needs the extra ``mdns``. Who announces a hub on a network is believed: it is for networks that are all yours.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mirror.errors import MirrorError

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncZeroconf

SERVICE = "_ollama-mirror._tcp.local."
_ANSWER_MS = 2000


class NoMulticast(MirrorError):
    """The network cannot be asked: the extra is not installed, or multicast does not work here."""


@asynccontextmanager
async def announced(
    port: int, addresses: Iterable[str], *, name: str | None = None, interfaces: Any = None
) -> AsyncIterator[None]:
    """Tell the network of a hub at ``port`` of ``addresses`` while the context lasts. Raises NoMulticast."""
    zeroconf = _package()
    host = (name or socket.gethostname()).partition(".")[0]
    info = zeroconf.asyncio.AsyncServiceInfo(
        SERVICE,
        f"{host}.{SERVICE}",
        port=port,
        properties={"path": "/"},
        server=f"{host}.local.",
        addresses=[ipaddress.ip_address(one).packed for one in addresses],
    )
    async with _opened(interfaces) as network:
        try:
            await (await network.async_register_service(info, allow_name_change=True))
        except (zeroconf.Error, OSError) as error:
            raise NoMulticast(f"the hub cannot be announced: {error or type(error).__name__}") from error
        try:
            yield
        finally:
            await (await network.async_unregister_service(info))


async def found(within_s: float, *, interfaces: Any = None) -> str:
    """Return the URL of the first hub that answers. Raises NoMulticast where none does in time."""
    zeroconf = _package()
    names: asyncio.Queue[str] = asyncio.Queue()

    def seen(name: str, state_change: object, **_: object) -> None:
        if state_change is not zeroconf.ServiceStateChange.Removed:
            names.put_nowait(name)

    async with _opened(interfaces) as network:
        browser = zeroconf.asyncio.AsyncServiceBrowser(network.zeroconf, SERVICE, handlers=[seen])
        try:
            async with asyncio.timeout(within_s):
                while True:
                    if (url := await _url(network, await names.get())) is not None:
                        return url
        except TimeoutError:
            raise NoMulticast(f"no hub was found within {within_s:g} s; hub.announce has one say where it is") from None
        finally:
            await browser.async_cancel()


async def _url(network: "AsyncZeroconf", name: str) -> str | None:
    info = await network.async_get_service_info(SERVICE, name, timeout=_ANSWER_MS)
    addresses = info.parsed_addresses() if info is not None else []
    if info is None or not addresses or not info.port:
        return None
    address = next((one for one in addresses if ":" not in one), addresses[0])
    return f"http://[{address}]:{info.port}" if ":" in address else f"http://{address}:{info.port}"


@asynccontextmanager
async def _opened(interfaces: Any) -> "AsyncIterator[AsyncZeroconf]":
    zeroconf = _package()
    try:
        network = zeroconf.asyncio.AsyncZeroconf(interfaces=interfaces or zeroconf.InterfaceChoice.All)
    except OSError as error:
        raise NoMulticast(f"multicast does not work here: {error.strerror}") from error
    try:
        yield network
    finally:
        await network.async_close()


def _package() -> Any:
    try:
        import zeroconf
        import zeroconf.asyncio
    except ImportError as error:
        raise NoMulticast("finding hubs needs one more package: pip install 'ollama-mirror[mdns]'") from error
    return zeroconf
