"""Where a client that asks for a blob reads its bytes: the addresses that go into Location."""

from collections.abc import Callable

from aiohttp import web
from yarl import URL

from mirror.access import CALLER
from mirror.values import Digest

TICKET = "ticket"


class Locations:
    """Gives addresses of blobs, with a ticket for callers that showed a key: Ollama asks for ranges without it.

    ``elsewhere`` says where else the bytes may be had, if anywhere; ``ticket`` seals one for a blob and a key's id.
    """

    def __init__(self, elsewhere: Callable[[web.Request], URL | None], ticket: Callable[[Digest, str], str]) -> None:
        self._elsewhere = elsewhere
        self._ticket = ticket

    def here(self, request: web.Request, digest: Digest) -> str:
        """Return the address of the blob at this very place, for the ranges that follow."""
        path, query = request.rel_url.raw_path, self._query(request, digest)
        return f"{path}?{query}" if query else path

    def elsewhere(self, request: web.Request, digest: Digest) -> str | None:
        """Return the address of the blob at another place where it is better read; None: there is none."""
        found = self._elsewhere(request)
        if found is None:
            return None
        query = self._query(request, digest)
        return f"{found}?{query}" if query else str(found)

    def _query(self, request: web.Request, digest: Digest) -> str:
        caller = request.get(CALLER)
        if caller is None or caller.key_id is None:
            return ""
        if caller.by_ticket:
            return request.rel_url.raw_query_string  # a ticket is not good for a longer one
        return f"{TICKET}={self._ticket(digest, caller.key_id)}"
