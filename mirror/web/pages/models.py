"""Models: what is here, what one of them is, and what people do with it."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mirror.access import CALLER
from mirror.db import Ledger
from mirror.dispatch import Pool, model_key
from mirror.fill import Admission, Rollback
from mirror.proxy import Descriptions
from mirror.store import Pins, Store
from mirror.values import InvalidModelName, ModelName, NamePattern
from mirror.web.hiding import hidden_from
from mirror.web.pages.forms import Fields, acting, done, failed, field
from mirror.web.pages.shown import Shown
from mirror.web.queue_desk import QueueDesk
from mirror.web.views import earlier_view, model_details, models_view

_LIST = "/mirror/models"
_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class ModelPages:
    """The list, a page for each model, and its forms."""

    shown: Shown
    store: Store
    pins: Pins
    ledger: Ledger
    pool: Pool
    desk: QueueDesk
    rollback: Rollback
    descriptions: Descriptions
    admission: Admission
    host: str

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(_LIST, self.listed),
            web.get(f"{_LIST}/{{name:.+}}", self.show),
            *(
                web.post(f"{_LIST}/{path}", acting(self.shown, act))
                for path, act in (
                    ("pin", self.pin),
                    ("unpin", self.unpin),
                    ("drop", self.drop),
                    ("update", self.update),
                    ("rollback", self.back),
                    ("release", self.release),
                )
            ),
        ]

    async def listed(self, request: web.Request) -> web.StreamResponse:
        """Every model, the newest first."""
        hidden = hidden_from(request, self.admission)
        rows = await models_view(self.store, self.ledger, self.pins, hidden)
        found = [{**row, **self._whereabouts(ModelName.parse(row["name"], host=self.host))} for row in rows]
        return self.shown.page(request, "models.html", {"models": found})

    async def show(self, request: web.Request) -> web.StreamResponse:
        """One model: its blobs, what its weights say of themselves, what it meant before."""
        text = request.match_info["name"]
        try:
            name = ModelName.parse(text, host=self.host)
        except InvalidModelName as error:
            return failed(self.shown, request, 404, str(error))
        hidden = hidden_from(request, self.admission)(name)
        view = None if hidden else await model_details(name, self.store, self.ledger, self.pins)
        if view is None:
            return failed(self.shown, request, 404, f"{name.short} is not in the store")
        stored = self.store.find(name) or self.store.extra.find(name)
        said = await self.descriptions.of(stored) if stored is not None else None
        context = {
            "model": {**view, **self._whereabouts(name)},
            "pin": self.pins.why(name),
            "earlier": [earlier_view(one) for one in self.rollback.known(name)],
            "described": said,
            "license": next(iter(self.descriptions.layers(stored, "license")), "")[:_TEXT] if stored else "",
        }
        return self.shown.page(request, "model.html", context)

    async def pin(self, request: web.Request, fields: Fields) -> str:
        """Have a model stay."""
        name = self._named(fields)
        await asyncio.to_thread(self.pins.add, self._pattern(name))
        return done(_page(name), "pinned")

    async def unpin(self, request: web.Request, fields: Fields) -> web.StreamResponse | str:
        """Let a model go again, where it was pinned by its own name."""
        name = self._named(fields)
        if not await asyncio.to_thread(self.pins.remove, self._pattern(name)):
            return failed(self.shown, request, 409, f"{name.short} is {self.pins.why(name) or 'not pinned'}")
        return done(_page(name), "unpinned")

    async def drop(self, request: web.Request, fields: Fields) -> web.StreamResponse | str:
        """Take a model out of the store."""
        name = self._named(fields)
        if await self.store.remove(name) is None:
            return failed(self.shown, request, 404, f"{name.short} is not in the store")
        return done(_LIST, "dropped")

    async def update(self, request: web.Request, fields: Fields) -> str:
        """Fetch what is new of a model, at once."""
        name, caller = self._named(fields), request[CALLER]
        await self.desk.add(name.short, caller.user, caller.who, at_once=True)
        return done("/mirror/pulls", "updating")

    async def back(self, request: web.Request, fields: Fields) -> str:
        """Put a tag back to what it meant before."""
        name = self._named(fields)
        await self.rollback.back(name, self.rollback.find(name, field(fields, "to")), lambda _: None)
        return done(_page(name), "rolled_back")

    async def release(self, request: web.Request, fields: Fields) -> str:
        """Let a tag move again."""
        name = self._named(fields)
        await self.rollback.release(name)
        return done(_page(name), "released")

    def _named(self, fields: Fields) -> ModelName:
        return ModelName.parse(field(fields, "name"), host=self.host)

    def _pattern(self, name: ModelName) -> NamePattern:
        return NamePattern.parse(name.short, host=self.host)

    def _whereabouts(self, name: ModelName) -> dict[str, Any]:
        """Return where a model comes from, and which Ollamas have it."""
        having = [one.id for one in self.pool.having(model_key(name.short))]
        return {"upstream": name.host, "having": having}


def _page(name: ModelName) -> str:
    return f"{_LIST}/{name.short}"
