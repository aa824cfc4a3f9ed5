"""Whose a request is: who shows a key, whom a trusted gateway speaks for, or an address."""

from collections.abc import Iterable

from aiohttp import web

from mirror.access.callers import CALLER
from mirror.access.limits import client_of

_HEADERS = ("X-User-ID", "X-OpenWebUI-User-Id", "X-OpenWebUI-User-Email", "X-OpenWebUI-User-Name")
_LONGEST = 200


class Users:
    """Names users. Headers count from this machine, from trusted proxies, and with the key of a user in ``gateways``.

    Else anybody could have as many turns as they can think of names.
    """

    def __init__(self, gateways: Iterable[str]) -> None:
        self._gateways = frozenset(gateways)

    def of(self, request: web.Request) -> str:
        """Return the user that a request is counted for."""
        caller = request[CALLER]
        if caller.vouched or (caller.key_id is not None and caller.user in self._gateways):
            for name in _HEADERS:
                said = request.headers.get(name, "").strip()
                if said and said.isprintable():
                    return said[:_LONGEST]
        return caller.user if caller.key_id is not None else client_of(None, caller.address)
