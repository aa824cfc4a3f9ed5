"""Models that a node has to have: fetched through the hub's mirror, never from the internet."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import structlog

from mirror.errors import BackendError, MirrorError
from mirror.ollama import Ollama
from mirror.values import DEFAULT_HOST, InvalidModelName, ModelName

log = structlog.get_logger(__name__)

_LOOK_S = 30.0
_AGAIN_S = 5.0
_LONGEST_S = 600.0
_TIDY_S = 10.0


class CannotFetch(MirrorError):
    """A model that cannot be fetched through this hub at all."""


class Required:
    """Has an Ollama pull the models that it lacks from a hub, one after the other. ``run`` it once.

    Each is pulled under the hub's name, ``HUB:PORT/library/NAME``, copied to its plain name, and the long one deleted:
    names only, the blobs stay. One that fails is tried again, later each time.
    """

    def __init__(self, names: tuple[ModelName, ...], ollama: Ollama, hub: str) -> None:
        self._names = names
        self._ollama = ollama
        self._hub = hub
        self._problems: dict[ModelName, str] = {}

    async def run(self) -> None:
        """Look, and fetch what is missing, until cancelled; at once done where nothing is required."""
        wait_s = 0.0
        while self._names:
            whole = False
            try:
                whole = await self.look()
            except Exception:  # the edge of a node: it goes on with the models that it has
                log.exception("required models not looked at")
            wait_s = _LOOK_S if whole else min(max(2 * wait_s, _AGAIN_S), _LONGEST_S)
            await asyncio.sleep(wait_s)

    async def look(self) -> bool:
        """Fetch what is missing now; False where something is missing still."""
        try:
            listed = {one.name.lower() for one in await self._ollama.models()}
        except BackendError:
            return False  # which the heartbeat's look tells
        whole = True
        for name in self._names:
            if name.short.lower() in listed:
                await self._sweep(name, listed)
            else:
                whole = await self._tried(name) and whole
        return whole

    async def _tried(self, name: ModelName) -> bool:
        try:
            await self._fetch(name)
        except MirrorError as error:
            if self._problems.get(name) != str(error):
                log.warning("required model not fetched; tried again", name=name.short, problem=str(error))
            self._problems[name] = str(error)
            return False
        self._problems.pop(name, None)
        log.info("required model fetched", name=name.short)
        return True

    async def _fetch(self, name: ModelName) -> None:
        """Pull, name and tidy. Raises BackendError, CannotFetch."""
        long = hub_name(name, self._hub).short
        log.info("fetching a required model", name=name.short, through=self._hub)
        async with self._ollama.pull(long, insecure=urlsplit(self._hub).scheme == "http") as steps:
            async for _ in steps:
                pass
        await self._ollama.copy(long, name.short)
        await self._forget(long)

    async def _sweep(self, name: ModelName, listed: set[str]) -> None:
        """Delete the long name of a model that a node left which was killed."""
        with suppress(CannotFetch):
            long = hub_name(name, self._hub).short
            if long.lower() in listed:
                await self._forget(long)

    async def _forget(self, long: str) -> None:
        """Delete a name; one that stays is deleted at the next look."""
        try:
            async with asyncio.timeout(_TIDY_S):
                await self._ollama.delete(long)
        except (BackendError, TimeoutError) as error:
            log.debug("not deleted", name=long, problem=str(error))


def hub_name(name: ModelName, hub: str) -> ModelName:
    """Return the name by which an Ollama pulls a model from a hub. Raises CannotFetch."""
    parts = urlsplit(hub)
    if name.host.lower() != DEFAULT_HOST:
        raise CannotFetch(f"{name} names a registry of its own, so it cannot be fetched through the hub")
    if parts.path:
        raise CannotFetch(f"{hub} has a path, for which Ollama's names have no room")
    try:
        return ModelName(parts.netloc, name.namespace, name.model, name.tag)
    except InvalidModelName as error:  # an IPv6 address
        raise CannotFetch(f"{parts.netloc} fits into no name of Ollama's: give the hub's URL by a name") from error
