"""Prompt jobs: a text left to be answered, one that is watched, and the list of all."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from mirror.access import Scope, Users, user_of
from mirror.fill import Admission
from mirror.prompts import NoSuchPrompt, Prompt, Prompts, State, Worker, parse_prompt
from mirror.web.pages.forms import Fields, acting, failed, field
from mirror.web.pages.shown import Shown, may_do

_SUBMIT, _LIST = "/prompts", "/list"
_SIZE = 5


@dataclass(frozen=True, slots=True)
class PromptPages:
    """The pages of an older proxy. While ``guarded`` says that there are keys, users see their own prompts alone."""

    shown: Shown
    prompts: Prompts
    worker: Worker
    users: Users
    admission: Admission
    guarded: Callable[[], bool]
    model: str
    aliases: Mapping[str, str]

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get(_SUBMIT, self.form),
            web.get(f"{_SUBMIT}/{{id}}", self.watch),
            web.get(_LIST, self.listed),
            web.post(f"{_SUBMIT}/ask", acting(self.shown, self.ask)),
            web.post(f"{_SUBMIT}/cancel", acting(self.shown, self.cancel)),
        ]

    async def form(self, request: web.Request) -> web.StreamResponse:
        """A text to leave, and the latest prompts."""
        page = await self.prompts.page(1, _SIZE, self._whose(request))
        return self.shown.page(request, "prompts.html", {"model": self.model, "page": page})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """One prompt, and its answer as far as it is."""
        try:
            prompt = await self._found(request, request.match_info["id"])
        except NoSuchPrompt as error:
            return failed(self.shown, request, 404, str(error))
        context: dict[str, Any] = {"prompt": prompt, "result": None}
        if prompt.state is State.COMPLETED:
            context["result"] = await self.prompts.result(prompt)
        return self.shown.page(request, "prompt.html", context)

    async def listed(self, request: web.Request) -> web.StreamResponse:
        """Every prompt, in pages, the newest first."""
        text = request.query.get("page", "1")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1
        page = await self.prompts.page(number, _SIZE, self._whose(request))
        return self.shown.page(request, "list.html", {"page": page})

    async def ask(self, request: web.Request, fields: Fields) -> str:
        """Leave a prompt."""
        said = {"prompt": field(fields, "prompt"), "model": fields.get("model", "").strip() or None}
        asked = parse_prompt({key: value for key, value in said.items() if value is not None}, self.model)
        model = self.aliases.get(asked.model.lower(), asked.model)
        asked = replace(asked, model=model, asker=user_of(request))
        self.admission.before_named(asked.model, user_of(request))
        prompt = await self.prompts.ask(asked, self.users.of(request))
        return f"{_SUBMIT}/{prompt.id}"

    async def cancel(self, request: web.Request, fields: Fields) -> str:
        """End one that is under way."""
        prompt = await self._found(request, field(fields, "id"))
        with suppress(NoSuchPrompt):  # it has come to an end in this moment
            await self.worker.cancel(prompt)
        return f"{_SUBMIT}/{prompt.id}?done=cancelled"

    async def _found(self, request: web.Request, id_: str) -> Prompt:
        prompt, whose = await self.prompts.find(id_), self._whose(request)
        if prompt is None or prompt.batch is not None or whose not in (None, prompt.user):
            raise NoSuchPrompt(id_)
        return prompt

    def _whose(self, request: web.Request) -> str | None:
        """Return whose prompts a request may see; None for everybody's."""
        return self.users.of(request) if self.guarded() and not may_do(request, Scope.ADMIN) else None
