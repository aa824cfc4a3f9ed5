"""Which models in the store are older than what their upstreams have under the same tag."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mirror.db import TagHistory
from mirror.errors import MirrorError, NotFoundUpstream
from mirror.store import Store, StoredManifest
from mirror.upstream import Upstreams
from mirror.values import Digest, ModelName

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Compared:
    """A model here and its tag upstream: ``there`` is the digest of the manifest it has now, None where it is gone.

    ``size`` is that model's size in bytes, ``lacking`` how many of them are not here. ``problem`` says why it could not
    be asked about. ``held``: people put the tag where it is, and only they move it on.
    """

    name: ModelName
    here: Digest
    there: Digest | None
    size: int = 0
    lacking: int = 0
    problem: str | None = None
    held: bool = False

    @property
    def outdated(self) -> bool:
        """Whether the upstream has another model under the tag."""
        return self.there is not None and self.there != self.here


async def compare(
    store: Store,
    upstreams: Upstreams,
    history: TagHistory,
    names: Iterable[ModelName],
    tell: Callable[[Compared], None],
) -> None:
    """Ask the upstreams about models in the store, one question each and some at once; nothing is kept of it."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(stored: StoredManifest) -> None:
        async with places:
            held = history.held(stored.name)
            found = await _compared(store, upstreams, stored)
            tell(replace(found, held=held is not None and held.digest == stored.digest))

    wanted = {name.folded for name in names}
    async with asyncio.TaskGroup() as group:
        for stored in sorted(store.complete, key=lambda one: one.name):
            if not wanted or stored.name.folded in wanted:
                group.create_task(one(stored))


async def _compared(store: Store, upstreams: Upstreams, stored: StoredManifest) -> Compared:
    name = stored.name
    try:
        manifest = await upstreams.of(name).manifest(name.repository, name.tag)
    except NotFoundUpstream:
        return Compared(name, stored.digest, None)
    except MirrorError as error:
        return Compared(name, stored.digest, None, problem=str(error))
    lacking = {blob.digest: blob.size for blob in manifest.blobs if store.blobs.size(blob.digest) is None}
    size = sum({blob.digest: blob.size for blob in manifest.blobs}.values())
    return Compared(name, stored.digest, manifest.digest, size, sum(lacking.values()))
