"""A model from the store to the Ollamas that want it: linked into their folder, or pulled by them from this mirror."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import structlog

from mirror.access import Passes
from mirror.config import Delivery
from mirror.errors import BackendError, CannotLink, MirrorError, NotDelivered
from mirror.ollama import Backend, ListedModel, Ollama, Progress
from mirror.pulls.destinations import Destinations, Target
from mirror.store import Store, StoredManifest, can_link, link_model
from mirror.values import InvalidModelName, Manifest, ModelName

log = structlog.get_logger(__name__)

Tell = Callable[[Progress], None]

_TIDY_S, _LIST_S = 10.0, 30.0
_SILENCE_S = 900.0
"""An Ollama says nothing while it looks at what it has got once more, which takes as long as its disk does."""
_UNREACHED = "; it pulls from {where}: if that is not where it reaches the mirror, set server.public_url"


class Deliveries:
    """Delivers models. For the event loop's thread; any number at once, the same model to the same Ollama once.

    An Ollama has no way to take in a manifest but to pull it. So it pulls from this mirror, under a name that is a
    pass (``access.passes``) and has no other meaning, which is then copied to the plain name and deleted: manifests
    only, the blobs stay. ``port`` is where the mirror listens, 0 while it does not.
    """

    def __init__(
        self, store: Store, passes: Passes, destinations: Destinations, way: Delivery, public_url: str | None
    ) -> None:
        self._store = store
        self._passes = passes
        self._destinations = destinations
        self._way = way
        self._public_url = public_url
        self._turns: WeakValueDictionary[tuple[str, ModelName], asyncio.Lock] = WeakValueDictionary()
        self.port = 0

    async def wanted(self, name: ModelName) -> bool:
        """Say whether any Ollama wants a model."""
        return bool(await self._destinations.of(name))

    def holds(self, name: ModelName) -> bool:
        """Say whether a model is whole in the store, or in a folder that is only read."""
        return self._whole(name) is not None

    def manifest(self, name: ModelName) -> Manifest | None:
        """Return the manifest of a model that is whole here; None where there is none."""
        stored = self._whole(name)
        return self._manifest(stored) if stored is not None else None

    async def deliver(self, name: ModelName, tell: Tell = lambda _: None) -> None:
        """Bring a model that the store has whole to every Ollama that wants it and has another, or none.

        ``tell`` hears the lines in which an Ollama tells its pull. Cancelled, or after a failure, no name but the
        plain one stays there.

        Raises:
            NotDelivered: the text names each Ollama that it could not be brought to, and why.
        """
        stored = self._whole(name)
        await self._bring(name, await self._destinations.of(stored.name if stored is not None else name), tell)

    async def bring(self, name: ModelName, backend: Backend) -> None:
        """Bring a model to one Ollama, whether or not that was to have it. Raises NotDelivered."""
        known = [one for one in await self._destinations.of(name) if one.backend.url == backend.url]
        await self._bring(name, known or [Target(backend)], lambda _: None)

    async def _bring(self, name: ModelName, targets: Sequence[Target], tell: Tell) -> None:
        stored = self._whole(name)
        manifest = self._manifest(stored) if stored is not None else None
        if stored is None or manifest is None:
            raise NotDelivered(f"{name.short} is not whole in the store any more")
        failed: list[str] = []

        async def one(target: Target) -> None:
            try:
                async with self._turn(target, stored.name):
                    await self._deliver_to(target, stored, manifest, tell)
            except MirrorError as error:
                failed.append(f"{target.backend.url}: {error}")

        async with asyncio.TaskGroup() as group:
            for target in targets:
                group.create_task(one(target))
        if failed:
            raise NotDelivered(f"{name.short} is in the store, but was not delivered to {'; '.join(failed)}")

    @asynccontextmanager
    async def _turn(self, target: Target, name: ModelName) -> AsyncIterator[None]:
        key = (target.backend.url, name.folded)
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = asyncio.Lock()
        async with turn:
            yield

    def _whole(self, name: ModelName) -> StoredManifest | None:
        return self._store.complete.find(name) or self._store.extra.find_whole(name)

    def _manifest(self, stored: StoredManifest) -> Manifest | None:
        return self._store.complete.read(stored) or self._store.extra.manifest(stored)

    async def _deliver_to(self, target: Target, stored: StoredManifest, manifest: Manifest, tell: Tell) -> None:
        """Bring it to one Ollama. Raises BackendError, CannotLink."""
        try:
            async with asyncio.timeout(_LIST_S):
                listed = await target.ollama.models()
        except TimeoutError:
            raise NotDelivered(f"it did not say within {_LIST_S:g} s what it has") from None
        await self._sweep(target.ollama, listed)
        if any(_is(one, stored.name) and one.digest == stored.digest.hex for one in listed):
            return
        if target.folder is not None and self._links(target, stored):
            folder, blobs = target.folder, tuple(self._store.expanded(stored))
            await asyncio.to_thread(link_model, self._store.layout, folder, stored.name, manifest, blobs)
        elif self._way is Delivery.LINK:
            raise CannotLink("pulls.delivery is link, and its folder is not known, or not on the store's file system")
        else:
            await self._hand_over(target, stored, manifest, tell)
        log.info("delivered", name=stored.name.short, to=target.backend.url)

    def _links(self, target: Target, stored: StoredManifest) -> bool:
        ours = self._store.extra.folder_of(stored) is None
        if self._way is Delivery.PULL or target.folder is None or not ours:
            return False
        return self._way is Delivery.LINK or can_link(self._store.layout, target.folder)

    async def _hand_over(self, target: Target, stored: StoredManifest, manifest: Manifest, tell: Tell) -> None:
        """Have an Ollama pull it from here, name it, and forget by which name it came."""
        where, insecure = await self._where(target)
        digests = {blob.digest for blob in self._store.expanded(stored)}
        with self._passes.issued(stored.name, manifest, digests) as right:
            long = right.name_at(where).short
            try:
                async with asyncio.timeout(_SILENCE_S) as silence, target.ollama.pull(long, insecure=insecure) as steps:
                    async for step in steps:
                        silence.reschedule(asyncio.get_running_loop().time() + _SILENCE_S)
                        if step.digest:
                            tell(step)
                await target.ollama.copy(long, stored.name.short)
            except TimeoutError:
                raise NotDelivered(f"it said nothing for {_SILENCE_S:g} s while it pulled") from None
            except BackendError as error:
                raise NotDelivered(f"{error}{_UNREACHED.format(where=where)}") from error
            finally:
                await self._forget(target.ollama, long)

    async def _where(self, target: Target) -> tuple[str, bool]:
        """Return the host and port at which an Ollama reaches the mirror, and whether by plain HTTP."""
        if self._public_url is not None:
            parts = urlsplit(self._public_url)
            return parts.netloc, parts.scheme == "http"
        if not self.port:
            raise NotDelivered("the mirror is not serving, so it cannot be pulled from: run mirror serve")
        address = await target.backend.local_address()
        if ":" in address:
            # Ollama's names have no room for an IPv6 address (types/model/name.go).
            if address != "::1":
                raise NotDelivered(f"{address}, where it would pull from, fits into no name: set server.public_url")
            address = "localhost"
        return f"{address}:{self.port}", True

    async def _sweep(self, ollama: Ollama, listed: Sequence[ListedModel]) -> None:
        """Delete the names that a mirror left there which was killed."""
        for one in listed:
            with suppress(InvalidModelName):
                if self._passes.is_left_over(ModelName.parse(one.name)):
                    await self._forget(ollama, one.name)

    async def _forget(self, ollama: Ollama, name: str) -> None:
        """Delete a name if it is there; one that stays is deleted before the next delivery."""
        try:
            async with asyncio.timeout(_TIDY_S):
                await ollama.delete(name)
        except (BackendError, TimeoutError) as error:
            log.debug("not deleted", name=name, problem=str(error))


def _is(listed: ListedModel, name: ModelName) -> bool:
    with suppress(InvalidModelName):
        return ModelName.parse(listed.name).folded == name.folded
    return False
