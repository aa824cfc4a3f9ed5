"""Whose a request is: who shows a key, whom a trusted gateway speaks for, or an address."""

from collections.abc import Iterable

from aiohttp import web

from mirror.access.callers import CALLER
from mirror.access.limits import client_of

_HEADERS = ("X-User-ID", "X-OpenWebUI-User-Id", "X-OpenWebUI-User-Email", "X-OpenWebUI-User-Name")
_LONGEST = 200


class Users:
    """Names users. Who shows a key is its user, unless that is one of ``gateways``, who say for whom they ask.

    Of those without a key headers count from this machine and from trusted proxies: else anybody could have as many
    turns as they can think of names, and read what is another's.
    """

    def __init__(self, gateways: Iterable[str]) -> None:
        self._gateways = frozenset(gateways)

    def of(self, request: web.Request) -> str:
        """Return the user that a request is counted for."""
        caller = request[CALLER]
        speaks_for_others = caller.vouched if caller.key_id is None else caller.user in self._gateways
        if speaks_for_others:
            for name in _HEADERS:
                said = request.headers.get(name, "").strip()
                if said and said.isprintable():
                    return said[:_LONGEST]
        return caller.user if caller.key_id is not None else client_of(None, caller.address)
