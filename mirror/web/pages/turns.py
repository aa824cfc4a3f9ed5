"""Users and Ollamas: who waits, who runs where, and what an admin may do about it."""

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from mirror.dispatch import Pool, Turns
from mirror.fill import Admission
from mirror.hub import Nodes
from mirror.web.hiding import hidden_from, hides
from mirror.web.pages.forms import BadForm, Fields, acting, done, failed, field
from mirror.web.pages.shown import Shown
from mirror.web.turn_views import backend_view, users_view

_MOST = 300
"""Users that one page shows: thousands would hold up everybody while it is made."""
_USERS, _OLLAMAS = "/mirror/users", "/mirror/ollamas"


@dataclass(frozen=True, slots=True)
class TurnPages:
    """The fair queue by user, the pool by Ollama, and their forms."""

    shown: Shown
    turns: Turns
    pool: Pool
    nodes: Nodes
    admission: Admission

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(_USERS, self.users),
            web.get(_OLLAMAS, self.ollamas),
            web.post(f"{_USERS}/block", acting(self.shown, self.block)),
            web.post(f"{_USERS}/unblock", acting(self.shown, self.unblock)),
            web.post(f"{_USERS}/weigh", acting(self.shown, self.weigh)),
            web.post(f"{_OLLAMAS}/drain", acting(self.shown, self.drain)),
            web.post(f"{_OLLAMAS}/enable", acting(self.shown, self.enable)),
        ]

    async def users(self, request: web.Request) -> web.StreamResponse:
        """Who has what in the queue."""
        rows = users_view(self.turns.users())  # who waits or runs comes first
        context = {"users": rows[:_MOST], "further": max(0, len(rows) - _MOST), "waiting": self.turns.waiting}
        return self.shown.page(request, "users.html", context)

    async def ollamas(self, request: web.Request) -> web.StreamResponse:
        """Which Ollamas there are, and what each does and has."""
        hidden = hidden_from(request, self.admission)
        rows = [
            {**backend_view(one, self.pool, hidden), "names": sorted(n for n in one.models if not hides(hidden, n))}
            for one in self.pool
        ]
        return self.shown.page(request, "ollamas.html", {"backends": rows})

    async def block(self, request: web.Request, fields: Fields) -> str:
        """Serve a user no more."""
        self.turns.block(field(fields, "user"))
        return done(_USERS, "blocked")

    async def unblock(self, request: web.Request, fields: Fields) -> str:
        """Serve a user again."""
        self.turns.unblock(field(fields, "user"))
        return done(_USERS, "unblocked")

    async def weigh(self, request: web.Request, fields: Fields) -> str:
        """Give a user another share."""
        text = field(fields, "weight")
        try:
            weight = float(text)
        except ValueError:
            weight = 0.0
        if not 0 < weight <= 1000:
            raise BadForm(text, "a share above 0 and up to 1000")
        self.turns.weigh(field(fields, "user"), weight)
        return done(_USERS, "weighed")

    async def drain(self, request: web.Request, fields: Fields) -> web.StreamResponse | str:
        """Give an Ollama nothing new."""
        return self._drained(request, fields, draining=True)

    async def enable(self, request: web.Request, fields: Fields) -> web.StreamResponse | str:
        """Give an Ollama work again."""
        return self._drained(request, fields, draining=False)

    def _drained(self, request: web.Request, fields: Fields, *, draining: bool) -> web.StreamResponse | str:
        id_ = field(fields, "backend")
        member = self.pool.get(id_)
        if member is None:
            return failed(self.shown, request, 404, f"there is no Ollama {id_[:200]}")
        if member.node:
            (self.nodes.drain if draining else self.nodes.enable)(member.id)
        else:
            self.pool.drain(member, draining=draining)
        return done(_OLLAMAS, "drained" if draining else "enabled")
