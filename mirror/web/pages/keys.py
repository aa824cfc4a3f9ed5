"""Keys, for admins: which there are, a new one, the end of one."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mirror.access import Keys, Scope
from mirror.access.desk import Desk
from mirror.config import parse_duration
from mirror.web.pages.forms import BadForm, Fields, acting, done, field
from mirror.web.pages.shown import Shown

_LIST = "/mirror/keys"


@dataclass(frozen=True, slots=True)
class KeyPages:
    """The file of keys as a page. A secret is on the one page that made it, and nowhere else."""

    shown: Shown
    desk: Desk
    keys: Keys

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(_LIST, self.listed),
            web.post(f"{_LIST}/add", acting(self.shown, self.add)),
            web.post(f"{_LIST}/revoke", acting(self.shown, self.revoke)),
        ]

    async def listed(self, request: web.Request) -> web.StreamResponse:
        """Every key, and what needs one."""
        return self.shown.page(request, "keys.html", await self._context())

    async def add(self, request: web.Request, fields: Fields) -> web.StreamResponse:
        """Make a key, and show its secret."""
        expires = fields.get("expires", "").strip()
        try:
            lasts_s = parse_duration(expires) if expires else None
        except ValueError as error:
            raise BadForm(expires[:200], f"a time that {error}") from error
        scopes = [scope.value for scope in Scope if scope.value in fields]
        if not scopes:
            raise BadForm("scopes", "at least one thing that the key is good for")
        user = fields.get("user", "").strip() or None
        made = await asyncio.to_thread(self.desk.add, field(fields, "name"), scopes, user=user, lasts_s=lasts_s)
        await self.keys.refresh()
        return self.shown.page(request, "keys.html", {**await self._context(), "made": made})

    async def revoke(self, request: web.Request, fields: Fields) -> str:
        """End a key."""
        await asyncio.to_thread(self.desk.revoke, field(fields, "name"))
        await self.keys.refresh()
        return done(_LIST, "revoked")

    async def _context(self) -> dict[str, Any]:
        return {**await asyncio.to_thread(self.desk.keys), "scopes": [scope.value for scope in Scope]}
