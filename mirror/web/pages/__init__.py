"""Pages for browsers: what programs get as JSON, for people, with forms that work without scripts."""

from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files

from aiohttp import web

from mirror.access import CALLER
from mirror.web.pages.home import HomePages
from mirror.web.pages.keys import KeyPages
from mirror.web.pages.models import ModelPages
from mirror.web.pages.prompts import PromptPages
from mirror.web.pages.pulls import PullPages
from mirror.web.pages.shown import Shown, set_up
from mirror.web.pages.turns import TurnPages

__all__ = [
    "AroundPages",
    "HomePages",
    "KeyPages",
    "ModelPages",
    "PromptPages",
    "PullPages",
    "Shown",
    "TurnPages",
    "set_up",
]

_KINDS = {"mirror.css": "text/css", "mirror.js": "text/javascript"}


class AroundPages:
    """What pages stand on: one style, one script, and a way to show a key."""

    def __init__(self) -> None:
        folder = files("mirror.web") / "static"
        self._files = {name: (folder / name).read_bytes() for name in _KINDS}
        self._tags = {name: f'"{sha256(body).hexdigest()[:16]}"' for name, body in self._files.items()}

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(f"/mirror/static/{{name:{'|'.join(_KINDS)}}}", self.static),
            web.get("/mirror/signin", self.sign_in, allow_head=False),
        ]

    async def static(self, request: web.Request) -> web.StreamResponse:
        """Return the style or the script; browsers ask each time whether it is still the same."""
        name = request.match_info["name"]
        headers = {"ETag": self._tags[name], "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == self._tags[name]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._files[name], content_type=_KINDS[name], charset="utf-8", headers=headers)

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """Have the browser ask for a key (RFC 7617: any user, the key as password), and go home with it."""
        if request[CALLER].key_id is None:
            headers = {"WWW-Authenticate": 'Basic realm="mirror: any user, and a key as password", charset="UTF-8"'}
            return web.Response(status=401, headers=headers, text="a key is the password; mirror key add makes one\n")
        return web.Response(status=303, headers={"Location": "/"})
