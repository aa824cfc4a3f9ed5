"""``/api/v1/prompt`` and ``/api/v1/prompts``: prompt jobs, in the JSON of an older proxy."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from aiohttp import web

from mirror.access import user_of
from mirror.config import Run
from mirror.fill import Admission
from mirror.prompts.live import Lives
from mirror.prompts.prompt import InvalidPrompt, NoSuchPrompt, Prompt, State, parse_prompt
from mirror.prompts.prompts import Prompts
from mirror.prompts.reading import LARGEST_PAGE, Bodies, answering, key_in, number_in, page_view, status_view
from mirror.prompts.sight import Sight
from mirror.prompts.telling import Telling
from mirror.prompts.webhooks import Webhooks
from mirror.prompts.worker import Worker

_PAGE_SIZE = 5


class PromptFace:
    """The routes of prompt jobs. Who may use them the gate decides, and what they see ``sight``."""

    def __init__(
        self,
        prompts: Prompts,
        worker: Worker,
        lives: Lives,
        sight: Sight,
        admission: Admission,
        webhooks: Webhooks,
        *,
        model: str,
        aliases: Mapping[str, str],
        max_body: int,
    ) -> None:
        """``model`` is that of prompts which name none, ``aliases`` are further names of models."""
        self._prompts = prompts
        self._worker = worker
        self._telling = Telling(prompts, lives)
        self._sight = sight
        self._admission = admission
        self._webhooks = webhooks
        self._model = model
        self._aliases = {name.lower(): real for name, real in aliases.items()}
        self._bodies = Bodies(max_body)

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes, which have to come before those of Ollama's API."""
        return [
            web.post("/api/v1/prompt", answering(self.submit)),
            web.get("/api/v1/prompts", answering(self.list)),
            web.get("/api/v1/prompt/{id}/status", answering(self.status)),
            web.get("/api/v1/prompt/{id}/result", answering(self.result)),
            web.get("/api/v1/prompt/{id}/events", answering(self.events), allow_head=False),
            web.delete("/api/v1/prompt/{id}", answering(self.remove)),
        ]

    async def close(self, _: web.Application) -> None:
        """End the events that are read, so that none of them holds up the end of the mirror."""
        self._telling.close()

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Take a prompt; answer with its id."""
        key = key_in(request)
        async with self._bodies.reading(request) as said:
            asked = parse_prompt(said, self._model)
            if asked.run is Run.WINDOW and not self._worker.ever_opens:
                raise InvalidPrompt(Run.WINDOW, "run: now or idle, as there are no windows (prompts.windows)")
            asked = replace(asked, model=self._aliases.get(asked.model.lower(), asked.model), asker=user_of(request))
            self._admission.before_named(asked.model, user_of(request))
            if asked.webhook is not None:
                await self._webhooks.check(asked.webhook)
            prompt = await self._prompts.ask(asked, self._sight.user(request), key)
        return web.json_response({"id": prompt.id})

    async def list(self, request: web.Request) -> web.StreamResponse:
        """Show a page of the list, the newest first; a page that there is not is the nearest one."""
        number = number_in(request, "page", 1)
        size = min(max(number_in(request, "page_size", _PAGE_SIZE), 1), LARGEST_PAGE)
        return web.json_response(page_view(await self._prompts.page(number, size, self._sight.owner(request))))

    async def status(self, request: web.Request) -> web.StreamResponse:
        """Say how far one is."""
        return web.json_response(status_view(await self._found(request)))

    async def result(self, request: web.Request) -> web.StreamResponse:
        """Say how far one is, and what was answered if it is completed."""
        prompt = await self._found(request)
        view = status_view(prompt)
        if prompt.state is State.COMPLETED:
            view["result"] = await self._prompts.result(prompt)
        return web.json_response(view)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Tell what is said as it is said."""
        return await self._telling.answer(request, await self._found(request))

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Cancel one that is under way; forget one that is over."""
        prompt = await self._found(request)
        if prompt.state.over:
            await self._prompts.forget(prompt)
            return web.json_response(status_view(prompt))
        with suppress(NoSuchPrompt):  # it has come to an end in this moment: that is what the answer says
            await self._worker.cancel(prompt)
        return web.json_response(status_view(await self._found(request)))

    async def _found(self, request: web.Request) -> Prompt:
        """Return the prompt job that a request is about.

        Raises NoSuchPrompt, also where it is somebody else's, or a line of a batch.
        """
        id_ = request.match_info["id"]
        prompt = await self._prompts.find(id_)
        if prompt is None or prompt.batch is not None or not self._sight.sees(request, prompt.user):
            raise NoSuchPrompt(id_)
        return prompt
