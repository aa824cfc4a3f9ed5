"""Pulls: the queue, a model asked for with its size and license in sight, and what became of earlier ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mirror.access import CALLER, Scope, user_of
from mirror.errors import MirrorError
from mirror.fill import Admission, Tags
from mirror.store import Store
from mirror.values import Invalid, ModelName
from mirror.web.hiding import Hidden, hidden_from
from mirror.web.pages.forms import Fields, acting, done, field
from mirror.web.pages.shown import Shown, may_do
from mirror.web.queue_desk import QueueDesk

_LIST = "/mirror/pulls"
_HISTORY = 20
_LICENSE = 20_000
_DONE = {"now": "hurried", "cancel": "cancelled", "retry": "retried", "pause": "paused", "resume": "resumed"}


@dataclass(frozen=True, slots=True)
class PullPages:
    """The queue as a page, and its forms."""

    shown: Shown
    desk: QueueDesk
    tags: Tags
    store: Store
    admission: Admission

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(_LIST, self.listed),
            web.post(f"{_LIST}/ask", acting(self.shown, self.ask)),
            web.post(f"{_LIST}/move", acting(self.shown, self.move)),
            web.post(f"{_LIST}/{{action:now|cancel|retry|pause|resume}}", acting(self.shown, self.act)),
        ]

    async def listed(self, request: web.Request) -> web.StreamResponse:
        """What is under way and what is over; with ``?name=`` what a model would be, before it is asked for."""
        hidden = hidden_from(request, self.admission)
        queue, past = await self.desk.show(), await self.desk.history(_HISTORY)
        asked = request.query.get("name", "").strip()
        context = {
            "queue": {**queue, "jobs": self._seen(queue, hidden)},
            "past": self._seen(past, hidden),
            "asked": asked,
            "offer": await self._offer(request, asked) if asked and self._may_ask(request) else None,
        }
        return self.shown.page(request, "pulls.html", context)

    async def ask(self, request: web.Request, fields: Fields) -> str:
        """Want a model; at once where an admin says so."""
        caller, at_once = request[CALLER], "at_once" in fields
        admin = may_do(request, Scope.ADMIN)
        await self.desk.add(
            field(fields, "name"), caller.user, caller.who, at_once=at_once and admin, limited=not admin
        )
        return done(_LIST, "asked")

    async def act(self, request: web.Request, fields: Fields) -> str:
        """Do one thing to a job, or to the queue."""
        action = request.match_info["action"]
        job = "" if action in ("pause", "resume") else field(fields, "job")
        await self.desk.act(action, job, None)
        return done(_LIST, _DONE[action])

    async def move(self, request: web.Request, fields: Fields) -> str:
        """Give a job another place in the queue."""
        text = field(fields, "position")
        position = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
        await self.desk.act("move", field(fields, "job"), position)
        return done(_LIST, "moved")

    def _may_ask(self, request: web.Request) -> bool:
        """Whether an upstream may be asked: not for a page of another site, which any browser may be led to load."""
        elsewhere = request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        return may_do(request, Scope.PULL) and not elsewhere

    def _seen(self, view: dict[str, Any], hidden: Hidden) -> list[dict[str, Any]]:
        return [one for one in view["jobs"] if not hidden(ModelName.parse(one["name"], host=self.desk.host))]

    async def _offer(self, request: web.Request, text: str) -> dict[str, Any]:
        """Return what a model would be: its size, what of it is here, its license; or why it cannot be had."""
        user = user_of(request)
        try:
            name = self.desk.named(text)
            self.admission.before(name, user)
            manifest = (await self.tags.by_tag(name)).manifest
            await self.admission.after(name, manifest, user)
            terms = await self.admission.license_of(name, manifest)
        except (MirrorError, Invalid) as error:
            return {"name": text, "problem": str(error)}
        sizes = {blob.digest: blob.size for blob in manifest.blobs}
        lacking = sum(size for digest, size in sizes.items() if self.store.blobs.size(digest) is None)
        return {"name": name.short, "size": sum(sizes.values()), "lacking": lacking, "license": terms[:_LICENSE]}
