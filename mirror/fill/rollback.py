"""Putting a tag back to a manifest that it meant before, and holding it there."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mirror.db import Ledger
from mirror.errors import BrokenStore, NotFoundUpstream, NothingEarlier, Offline
from mirror.fill.pull import Puller, PullProgress
from mirror.fill.tags import Tags
from mirror.store import Store, StoredManifest
from mirror.values import Digest, InvalidDigest, Manifest, ModelName

_DIGITS = re.compile(r"(?:sha256[:-])?([0-9a-f]{4,64})\Z", re.ASCII)
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Earlier:
    """A manifest that a tag meant before it came to mean another one at ``replaced_at`` (aware UTC; None: unknown).

    ``size`` is its model's in bytes; ``lacking`` how many of them are not here.
    """

    manifest: Manifest
    replaced_at: datetime | None
    size: int
    lacking: int

    @property
    def digest(self) -> Digest:
        """What it is asked for by."""
        return self.manifest.digest


class Rollback:
    """Goes back, and lets go. For the event loop's thread; ``offline``: nobody is asked for what is not here.

    What a tag meant stays known when it is put back, so that it can be put forward again.
    """

    def __init__(self, store: Store, ledger: Ledger, tags: Tags, puller: Puller, *, offline: bool) -> None:
        self._store = store
        self._ledger = ledger
        self._history = ledger.tags
        self._tags = tags
        self._puller = puller
        self._offline = offline
        self._turn = asyncio.Lock()
        self._end_stale_holds()

    def known(self, name: ModelName) -> list[Earlier]:
        """Return what a tag meant before and may mean again, the last one it meant first."""
        return [self._earlier(*one) for one in reversed(self._candidates(self._tags.filed(name)))]

    def find(self, name: ModelName, to: str | None = None) -> Earlier:
        """Return the manifest that is meant by its digest or the first digits of it; without, the one before now's.

        Raises:
            NothingEarlier: the tag is not known to have meant it.
            InvalidDigest: that is no digest.
        """
        name = self._tags.filed(name)
        candidates = self._candidates(name)
        if to is None:
            before = self._before_now(name, candidates)
            if before is None:
                hint = "; mirror rollback --list shows what it meant later" if candidates else ""
                raise NothingEarlier(f"nothing earlier is known of {name.short}{hint}")
            return self._earlier(*before)
        digits = _DIGITS.match(to.lower())
        if digits is None:
            raise InvalidDigest(to, "a digest as mirror rollback --list shows it, or four of its first digits or more")
        found = [one for one in candidates if one[0].digest.hex.startswith(digits[1])]
        if len(found) != 1:
            now = self._store.find(name)
            if not found and now is not None and now.digest.hex.startswith(digits[1]):
                raise NothingEarlier(f"{name.short} is at {now.digest.short} now")
            said = "more than one manifest begins" if found else "it is not known to have meant one that begins"
            raise NothingEarlier(f"{name.short}: {said} with {digits[1][:12]}; mirror rollback --list shows them")
        return self._earlier(*found[0])

    async def back(
        self, name: ModelName, earlier: Earlier, report: Callable[[PullProgress], None] = lambda _: None
    ) -> PullProgress:
        """Put a tag at what ``find`` found, and hold it there. Until all of that is here, it means what it meant.

        Raises:
            OnlyRead: an Ollama that shares the folder brought in what has the name.
            NotFoundUpstream: a blob is neither here nor upstream any more.
            Offline: blobs are not here, and the mirror asks nobody.
            UpstreamError, DigestMismatch, StoreFull, BrokenStore: it could not be done. Nothing has changed then.
        """
        name, manifest = self._tags.filed(name), earlier.manifest
        self._store.refuse_theirs(name)
        if self._offline and earlier.lacking:
            raise Offline(
                f"{name.short} cannot go back to {manifest.digest.short}: {earlier.lacking} bytes of it are not in the "
                "store, and the mirror is offline"
            )
        self._ledger.used(name)
        with self._store.blobs.wanting(self._to_stay(name, manifest)):  # no room is made at their cost
            for _ in range(_TRIES):
                try:
                    progress = await self._puller.bring(name, manifest, report)
                except NotFoundUpstream as error:
                    raise NotFoundUpstream(
                        f"{name.short} cannot go back to {manifest.digest.short}, and stays as it is: {error}"
                    ) from error
                if await self._put(name, manifest):
                    return progress
        raise BrokenStore(f"{name.short} stays as it is: blobs of {manifest.digest.short} went meanwhile; try again")

    async def release(self, name: ModelName) -> bool:
        """Let a tag move with its upstream again; False where it was not held."""
        released = self._history.release(self._tags.filed(name))
        await self._history.flush()
        return released

    async def _put(self, name: ModelName, manifest: Manifest) -> bool:
        """Have the hold written down and then the tag put; False where a blob has gone meanwhile."""
        async with self._turn:
            before = self._history.meanings(name)
            former = self._store.complete.find(name)
            meant = self._store.complete.read(former) if former else None
            self._history.hold(name, manifest.digest, manifest.raw)
            if meant is not None and meant.digest != manifest.digest:
                self._history.replaced(name, meant, manifest)  # known before it is gone, whatever ends the process
            try:
                await self._history.flush()
                await self._store.put_back(name, manifest)
            finally:
                now = self._store.find(name)  # cancelled, it may have been put there all the same
                done = now is not None and now.digest == manifest.digest
                if done:
                    self._history.hold(name, manifest.digest, manifest.raw)  # a pull may have ended just before
                else:
                    self._history.restore(name, before)
            await self._history.flush()
        return done

    def _to_stay(self, name: ModelName, manifest: Manifest) -> set[Digest]:
        shelves = (self._store.complete, self._store.staged)
        meant = [one for shelf in shelves if (one := shelf.find(name)) is not None]
        named: list[StoredManifest | Manifest] = [manifest, *meant]
        return {blob.digest for one in named for blob in self._store.expanded(one)}

    def _candidates(self, name: ModelName) -> list[tuple[Manifest, datetime | None]]:
        """What the tag meant, the oldest first, without what it means now; last what a newer one is to replace."""
        now, whole = self._store.find(name), self._store.complete.find(name)
        found = {one.digest: (Manifest.parse(one.raw), one.replaced_at) for one in self._history.meanings(name)}
        if now is not None:
            found.pop(now.digest, None)
        if now is not None and whole is not None and whole.digest != now.digest:
            manifest = self._store.complete.read(whole)
            if manifest is not None:
                found.pop(whole.digest, None)
                found[whole.digest] = (manifest, None)
        return list(found.values())

    def _before_now(
        self, name: ModelName, candidates: list[tuple[Manifest, datetime | None]]
    ) -> tuple[Manifest, datetime | None] | None:
        """Return the last of them that the tag meant before what it means now."""
        now = self._store.find(name)
        order = [one.digest for one in self._history.meanings(name)]
        if now is not None and now.digest in order:
            before = set(order[: order.index(now.digest)])
            candidates = [one for one in candidates if one[0].digest in before]
        return candidates[-1] if candidates else None

    def _earlier(self, manifest: Manifest, replaced_at: datetime | None) -> Earlier:
        sizes = {blob.digest: blob.size for blob in self._store.expanded(manifest)}
        lacking = sum(size for digest, size in sizes.items() if self._store.blobs.size(digest) is None)
        return Earlier(manifest, replaced_at, sum(sizes.values()), lacking)

    def _end_stale_holds(self) -> None:
        """A process that ended on the way has written down a hold, and the tag is not there: then it is none."""
        for stored in (*self._store.complete, *self._store.staged):
            held, now = self._history.held(stored.name), self._store.find(stored.name)
            if held is not None and now is not None and now.digest != held.digest:
                self._history.release(stored.name)
