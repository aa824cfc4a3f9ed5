"""A resolver of one name."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult


class FixedResolver(AbstractResolver):
    """Knows one host and its addresses, so that a connection goes to those that were looked at."""

    def __init__(self, host: str, addresses: list[str]) -> None:
        self._host = host
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return its addresses. Raises OSError for any other."""
        if host != self._host:
            raise OSError(f"{host} was not asked for")
        kinds = {one: socket.AF_INET6 if ":" in one else socket.AF_INET for one in self._addresses}
        return [
            ResolveResult(hostname=host, host=one, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for one, kind in kinds.items()
        ]

    async def close(self) -> None:
        """Do nothing: nothing is held."""
