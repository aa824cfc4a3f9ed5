"""What every page has: the way around, who looks, what they may, and a token for its forms."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web

from mirror import __version__
from mirror.access import CALLER, RIGHTS, Scope, Seal
from mirror.config import render_duration
from mirror.values import InvalidModelName, ModelName

_NAV = (
    ("/", "Home"),
    ("/mirror/models", "Models"),
    ("/mirror/pulls", "Pulls"),
    ("/prompts", "Prompts"),
    ("/mirror/users", "Users"),
    ("/mirror/ollamas", "Ollamas"),
    ("/mirror/stats", "Statistics"),
    ("/mirror/setup", "Setup"),
    ("/mirror/keys", "Keys"),
)
DONE = {
    "asked": "It is in the queue.",
    "blocked": "Requests of this user are served no more.",
    "cancelled": "It is cancelled.",
    "drained": "It gets nothing new.",
    "dropped": "The model is gone.",
    "enabled": "It gets work again.",
    "hurried": "It is fetched as soon as there is a place for it.",
    "moved": "It has another place.",
    "paused": "Nothing new is begun.",
    "pinned": "The model stays.",
    "released": "The tag moves with its upstream again.",
    "resumed": "The queue goes on.",
    "retried": "It is tried again.",
    "revoked": "The key is good for nothing more.",
    "rolled_back": "The tag means what it meant before, and is held there.",
    "unblocked": "Requests of this user are served again.",
    "unpinned": "The model may go when there is no room.",
    "updating": "What is new of it is being fetched.",
    "weighed": "The share is another from the next turn on.",
}
"""What a page says when it was come to by an action that was done."""


class Shown:
    """Renders pages. ``prompts`` says whether there are prompt jobs, and so a page of them."""

    def __init__(self, seal: Seal, *, prompts: bool) -> None:
        self._seal = seal
        self._nav = [one for one in _NAV if prompts or one[0] != "/prompts"]

    def page(
        self, request: web.Request, template: str, context: Mapping[str, Any], *, status: int = 200
    ) -> web.Response:
        """Return a page; nothing keeps it, for it is of this moment and for who asked."""
        response = aiohttp_jinja2.render_template(template, request, {**self.frame(request), **context}, status=status)
        # By "no-referrer" a browser would send its forms with no origin, as those of a page of another site.
        response.headers.update({"Cache-Control": "no-store", "Referrer-Policy": "same-origin"})
        return response

    def frame(self, request: web.Request) -> dict[str, Any]:
        """Return what the frame of every page is made of."""
        caller = request[CALLER]
        may = {scope.value: may_do(request, scope) for scope in (Scope.PULL, Scope.API, Scope.ADMIN)}
        return {
            "nav": [one for one in self._nav if one[0] != "/mirror/keys" or may["admin"]],
            "path": request.path,
            "version": __version__,
            "user": caller.user if caller.key_id is not None else None,
            "may": may,
            "form": self._seal.form(_who(request)),
            "done": DONE.get(request.query.get("done", "")),
        }

    def is_ours(self, request: web.Request, token: str) -> bool:
        """Say whether a form was on a page of ours that its sender was shown."""
        return self._seal.is_form(_who(request), token)


def may_do(request: web.Request, scope: Scope) -> bool:
    """Say whether the caller of a request may do what takes a scope."""
    return request[RIGHTS].refusal(scope) is None


def set_up(app: web.Application) -> None:
    """Have the application find the templates; what stands in them is text, and never markup."""
    loader = jinja2.PackageLoader("mirror.web")
    filters: dict[str, Callable[..., str]] = {"when": _when, "lasting": _lasting, "short": _short, "model": _model}
    aiohttp_jinja2.setup(app, loader=loader, autoescape=True, filters=filters, trim_blocks=True, lstrip_blocks=True)


def _who(request: web.Request) -> str:
    caller = request[CALLER]
    return caller.key_id if caller.key_id is not None else f"nobody at {caller.address}"


def _when(text: str | datetime | None) -> str:
    """Return an instant as people read it, by the mirror's own clock."""
    instant = datetime.fromisoformat(text) if isinstance(text, str) else text
    return instant.astimezone().strftime("%Y-%m-%d %H:%M") if instant is not None else "never"


def _lasting(seconds: float) -> str:
    """Return a time to wait in its two largest units."""
    return " ".join(_units(render_duration(max(1, round(seconds))))[:2])


def _units(text: str) -> list[str]:
    found, unit = [], ""
    for letter in text:
        if letter.isdigit() and unit and not unit[-1].isdigit():
            found.append(unit)
            unit = ""
        unit += letter
    return [*found, unit]


def _model(key: str) -> str:
    """Return a model's name as people write it."""
    try:
        return ModelName.parse(key).short
    except InvalidModelName:
        return key


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]
