"""The home page and the statistics: what comes down now, what is here, what it has saved."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mirror.db import Ledger
from mirror.dispatch import Pool
from mirror.errors import StoreError
from mirror.fill import Admission, Fill, Fills
from mirror.keep import Keeper
from mirror.store import Store
from mirror.web.hiding import Hidden, hidden_from
from mirror.web.pages.chart import BAR, GAP, HEIGHT, bars
from mirror.web.pages.shown import Shown
from mirror.web.queue_desk import QueueDesk
from mirror.web.turn_views import backend_view
from mirror.web.views import fill_view

_DAYS = 30
_NEXT = 5


@dataclass(frozen=True, slots=True)
class HomePages:
    """Shows; changes nothing."""

    shown: Shown
    store: Store
    keeper: Keeper
    ledger: Ledger
    fills: Fills
    pool: Pool
    desk: QueueDesk
    admission: Admission
    upstream: str

    async def home(self, request: web.Request) -> web.StreamResponse:
        """What moves now, and how full the store is."""
        hidden = hidden_from(request, self.admission)
        context = {
            "upstream": self.upstream,
            "host": request.host,
            "fills": [self._fill(one, hidden) for one in self.fills.in_flight],
            "queue": await self.desk.show(),
            "backends": [backend_view(one, self.pool, hidden) for one in self.pool],
            "store": await self._room(hidden),
            **self._traffic(),
        }
        return self.shown.page(request, "home.html", context)

    async def stats(self, request: web.Request, view: dict[str, Any]) -> web.StreamResponse:
        """The same statistics as programs get, for people."""
        return self.shown.page(request, "stats.html", {"stats": view, **self._traffic()})

    def _fill(self, fill: Fill, hidden: Hidden) -> dict[str, Any]:
        """Return a fill with the seconds it will take at the speed it had so far."""
        speed = fill.fetched / max(time.monotonic() - fill.begun_at, 0.001)
        left_s = (fill.size - fill.here) / speed if speed > 0 else None
        return {**fill_view(fill, self.store, hidden), "speed": speed, "left_s": left_s}

    async def _room(self, hidden: Hidden) -> dict[str, Any]:
        """Return how full the store is, of what it may have, and what would go first."""
        used = self.store.room.proven
        try:
            limit, free = self.keeper.limits().size, self.store.room.free()
        except StoreError as error:
            return {"used": used, "limit": None, "free": None, "problem": str(error), "next": [], "models": 0}
        models = [one for one in self.store.complete if not hidden(one.name)]
        going = [one for one in models if self.keeper.pins.why(one.name) is None]
        oldest = sorted(going, key=lambda one: self.ledger.use(one.name).used_at or one.written_at)
        return {
            "used": used,
            "limit": limit,
            "free": free,
            "problem": await asyncio.to_thread(self.store.problem),
            "next": [
                {"name": one.name.short, "size": one.size, "used_at": self.ledger.use(one.name).used_at}
                for one in oldest[:_NEXT]
            ],
            "models": len(models),
        }

    def _traffic(self) -> dict[str, Any]:
        days = [(day, one.fetched_bytes, one.saved_bytes) for day, one in self.ledger.days(_DAYS)]
        total = self.ledger.total
        return {
            "total": total,
            "hit_share": total.saved_bytes / total.served_bytes if total.served_bytes else None,
            "chart": {"bars": bars(days), "width": _DAYS * (BAR + GAP), "height": HEIGHT, "bar": BAR},
        }
