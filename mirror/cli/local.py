"""The store of this machine, worked on by the command itself while no server holds it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.access.seals import LOCAL
from mirror.app import Parts
from mirror.bundles import Bundle
from mirror.cli.reach import Steps
from mirror.errors import ServerError
from mirror.values import Digest, ModelName, NamePattern
from mirror.web import QueueDesk
from mirror.web.bundle_face import folder_steps, tar_steps
from mirror.web.steps import (
    gc_steps,
    outdated_steps,
    pull_steps,
    repair_steps,
    rollback_steps,
    scrub_steps,
    verify_steps,
)
from mirror.web.views import earlier_view, model_details, models_view, pins_view, removal_view, usage_view


@dataclass(frozen=True, slots=True)
class Local:
    """What AdminClient does, on parts that this process has opened."""

    parts: Parts

    async def models(self) -> list[dict[str, Any]]:
        """List the models in the store."""
        return await models_view(self.parts.store, self.parts.ledger, self.parts.keeper.pins)

    async def model(self, name: str) -> dict[str, Any]:
        """Show one model."""
        parsed = self._name(name)
        view = await model_details(parsed, self.parts.store, self.parts.ledger, self.parts.keeper.pins)
        return view or _unknown(parsed)

    async def remove(self, name: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Take a model out of the store, or say what that would free."""
        parsed = self._name(name)
        if dry_run:
            return await removal_view(parsed, self.parts.store) or _unknown(parsed)
        freed = await self.parts.store.remove(parsed)
        return _unknown(parsed) if freed is None else {"name": parsed.short, "freed": freed, "dry_run": False}

    def pull(self, name: str) -> AbstractAsyncContextManager[Steps]:
        """Fetch a model; yields steps of progress."""
        return pull_steps(self.parts.puller, self._name(name), LOCAL)

    def outdated(self, names: Sequence[str]) -> AbstractAsyncContextManager[Steps]:
        """Ask which models are older than what is upstream; yields one step each, and how many at the end."""
        parsed = [self._name(one) for one in names]
        return outdated_steps(self.parts.store, self.parts.upstreams, self.parts.ledger.tags, parsed)

    async def earlier(self, name: str) -> list[dict[str, Any]]:
        """List what a tag meant before, the latest first."""
        return [earlier_view(one) for one in self.parts.rollback.known(self._name(name))]

    def rollback(self, name: str, to: str | None) -> AbstractAsyncContextManager[Steps]:
        """Put a tag back to an earlier manifest, and hold it there; yields steps of progress."""
        parsed = self._name(name)
        return rollback_steps(self.parts.rollback, parsed, self.parts.rollback.find(parsed, to))

    async def release(self, name: str) -> dict[str, Any]:
        """Let a tag move with its upstream again."""
        parsed = self._name(name)
        return {"name": parsed.short, "released": await self.parts.rollback.release(parsed)}

    async def queue(self) -> dict[str, Any]:
        """Show the queue of pulls, and when windows open."""
        return await self._desk.show()

    async def queue_history(self, most: int) -> dict[str, Any]:
        """Show jobs that are over."""
        return await self._desk.history(most)

    async def queue_add(self, name: str, *, priority: int, at_once: bool) -> dict[str, Any]:
        """Want a model."""
        return await self._desk.add(name, LOCAL, LOCAL, priority=priority, at_once=at_once)

    async def queue_act(self, action: str, job: str = "", position: int | None = None) -> dict[str, Any]:
        """Put the queue in order: cancel, move, now, pause, resume, retry or run."""
        return await self._desk.act(action, job, position)

    def verify(self) -> AbstractAsyncContextManager[Steps]:
        """Check the store; yields steps of progress and problems."""
        return verify_steps(self.parts.store)

    async def usage(self) -> dict[str, Any]:
        """Say what the store takes, of what it may."""
        return await usage_view(self.parts.store, self.parts.keeper, self.parts.scrub)

    def gc(self, *, dry_run: bool) -> AbstractAsyncContextManager[Steps]:
        """Tidy up; yields what goes, and at the end what it comes to."""
        return gc_steps(self.parts.keeper, dry_run=dry_run)

    async def clear(self, *, dry_run: bool) -> dict[str, Any]:
        """Remove everything that is not pinned or in use."""
        async with gc_steps(self.parts.keeper, dry_run=dry_run, everything=True) as steps:
            return [step async for step in steps][-1]

    def scrub(self, rate: int | None, *, repair: bool) -> AbstractAsyncContextManager[Steps]:
        """Hash every blob again, at most ``rate`` bytes per second; yields progress and what is damaged."""
        return scrub_steps(self.parts.scrub, self.parts.repairer, rate, repair=repair)

    def repair(self) -> AbstractAsyncContextManager[Steps]:
        """Fetch again what damaged models lack; yields progress and how each ended."""
        return repair_steps(self.parts.repairer)

    async def pins(self) -> dict[str, Any]:
        """List the patterns that pin models."""
        return pins_view(self.parts.keeper.pins, self.parts.store)

    async def pin(self, pattern: str) -> dict[str, Any]:
        """Pin the models that a pattern matches."""
        await asyncio.to_thread(self.parts.keeper.pins.add, self._pattern(pattern))
        return await self.pins()

    async def unpin(self, pattern: str) -> dict[str, Any]:
        """Take back a pin."""
        if not await asyncio.to_thread(self.parts.keeper.pins.remove, self._pattern(pattern)):
            raise ServerError(f"there is no pin {pattern} to take back", 404)
        return await self.pins()

    async def describe_bundle(self, names: Sequence[str], since: Sequence[str]) -> dict[str, Any]:
        """Say what a bundle of these models holds, without the blobs whose digests are in ``since``."""
        return self._bundle(names, since).describe()

    def bundle(self, names: Sequence[str], since: Sequence[str], start: int) -> AsyncGenerator[bytes, None]:
        """Yield the tar of a bundle from byte ``start`` on."""
        return self._bundle(names, since).pieces(start)

    def import_tar(self, chunks: AsyncIterator[bytes], size: int | None) -> AbstractAsyncContextManager[Steps]:
        """Take in the models of a tar; yields how many of its bytes were read, and at the end what came in."""
        return tar_steps(self.parts.store, self.parts.keeper, chunks, size)

    def import_folder(self, folder: str, names: Sequence[str] | None) -> AbstractAsyncContextManager[Steps]:
        """Take in models of a folder; yields progress, and at the end what came in."""
        wanted = [self._name(one) for one in names] if names is not None else None
        return folder_steps(self.parts.store, self.parts.keeper, Path(folder), wanted)

    def _bundle(self, names: Sequence[str], since: Sequence[str]) -> Bundle:
        return Bundle.of(self.parts.store, map(self._name, names), frozenset(map(Digest.parse, since)))

    @property
    def _desk(self) -> QueueDesk:
        parts = self.parts
        return QueueDesk(parts.queue, parts.worker, parts.pace, parts.wishes, parts.tags, parts.settings.upstream.host)

    def _name(self, text: str) -> ModelName:
        return ModelName.parse(text, host=self.parts.settings.upstream.host)

    def _pattern(self, text: str) -> NamePattern:
        return NamePattern.parse(text, host=self.parts.settings.upstream.host)


def _unknown(name: ModelName) -> dict[str, Any]:
    raise ServerError(f"{name.short} is not in the store", 404)
