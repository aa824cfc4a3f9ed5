"""Which mirror a command works on: a running one, or the store itself while nobody holds it.

Rooms are imported where they are needed: a command that only asks a running mirror starts in half the time.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mirror.config import LogLevel, Settings, server_url
from mirror.errors import ServerError
from mirror.store import holder
from mirror.values import ModelName

if TYPE_CHECKING:
    from mirror.app import Parts

Steps = AsyncIterator[dict[str, Any]]


class Reached(Protocol):
    """A mirror that answers commands. Objects are those of the admin API; see AdminClient for what is raised."""

    async def models(self) -> list[dict[str, Any]]:
        """List the models in the store."""

    async def model(self, name: str) -> dict[str, Any]:
        """Show one model."""

    async def remove(self, name: str) -> dict[str, Any]:
        """Take a model out of the store."""

    def pull(self, name: str) -> AbstractAsyncContextManager[Steps]:
        """Fetch a model; yields steps of progress."""

    def verify(self) -> AbstractAsyncContextManager[Steps]:
        """Check the store; yields steps of progress and problems."""


@dataclass(frozen=True, slots=True)
class Local:
    """The store of this machine, held by this command."""

    parts: "Parts"

    async def models(self) -> list[dict[str, Any]]:
        """List the models in the store."""
        from mirror.web.views import models_view

        return await models_view(self.parts.store, self.parts.ledger)

    async def model(self, name: str) -> dict[str, Any]:
        """Show one model."""
        from mirror.web.views import model_details

        parsed = self._name(name)
        view = await model_details(parsed, self.parts.store, self.parts.ledger)
        if view is None:
            raise ServerError(f"{parsed.short} is not in the store", 404)
        return view

    async def remove(self, name: str) -> dict[str, Any]:
        """Take a model out of the store."""
        parsed = self._name(name)
        freed = await self.parts.store.remove(parsed)
        if freed is None:
            raise ServerError(f"{parsed.short} is not in the store", 404)
        return {"name": parsed.short, "freed": freed}

    def pull(self, name: str) -> AbstractAsyncContextManager[Steps]:
        """Fetch a model; yields steps of progress."""
        from mirror.web.admin import pull_steps

        return pull_steps(self.parts.puller, self._name(name))

    def verify(self) -> AbstractAsyncContextManager[Steps]:
        """Check the store; yields steps of progress and problems."""
        from mirror.web.admin import verify_steps

        return verify_steps(self.parts.store)

    def _name(self, text: str) -> ModelName:
        return ModelName.parse(text, host=self.parts.settings.upstream.host)


def _checked(server: str) -> str:
    """The --server URL, if it is one."""
    found = server_url({"OLLAMA_MIRROR_SERVER": server})
    return found or server


@asynccontextmanager
async def reached(settings: Settings, server: str | None, command: str, *, create: bool) -> AsyncIterator[Reached]:
    """Yield the mirror at ``server``; else the one that holds the store; else the store itself.

    Raises:
        StoreBusy: another command holds the store.
        StoreUnusable: there is none, and ``create`` is false.
    """
    from mirror.client import AdminClient

    key = settings.security.api_key
    busy = None if server else holder(settings.cache.state_directory / "lock")
    if busy is not None and busy.url is None:
        raise busy
    url = _checked(server) if server else busy.url if busy else None
    if url:
        async with AdminClient(url, key.get_secret_value() if key else None) as client:
            yield client
        return
    from mirror.app import opened_parts
    from mirror.app.logs import set_up_logs

    set_up_logs(settings.logging.model_copy(update={"level": LogLevel.WARNING, "file": None}))
    async with opened_parts(settings, holder=f"mirror {command}", create=create) as parts:
        yield Local(parts)
