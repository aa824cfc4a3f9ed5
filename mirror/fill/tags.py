"""Which manifest a tag has now: from the store while it is fresh, else from upstream, else stale."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mirror.config import Settings
from mirror.db import Ledger, Meaning
from mirror.errors import NotFoundUpstream, Offline, RateLimited, StoreFull, UpstreamError, UpstreamUnavailable
from mirror.events import Served
from mirror.fill.once import Once
from mirror.fill.unknown import Unknown
from mirror.store import Store
from mirror.upstream import Upstreams
from mirror.values import Digest, Manifest, ModelName


@dataclass(frozen=True, slots=True)
class Answer:
    """A manifest and where it came from; ``age_s`` is the time since the upstream last confirmed it."""

    manifest: Manifest
    served: Served
    age_s: float


class Tags:
    """Answers for manifests, one question at a time per name so that many askers cost the upstream one request.

    A tag that people hold means what they put it at, and its upstream is not asked. For the event loop's thread.
    ``now`` is the wall clock, for what must outlive a restart.
    """

    def __init__(
        self,
        store: Store,
        upstreams: Upstreams,
        settings: Settings,
        ledger: Ledger,
        unknown: Unknown,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self._cache = settings.cache
        self._offline = settings.offline
        self._ledger = ledger
        self._unknown = unknown
        self._now = now
        self._asking: Once[Answer] = Once()
        self._down_until: dict[str, float] = {}

    def filed(self, name: ModelName) -> ModelName:
        """Return the name under which a model is kept, whichever of its upstream's hosts ``name`` has."""
        return self._upstreams.routes.filed(name)

    async def by_tag(self, name: ModelName) -> Answer:
        """Return the manifest of a tag.

        Raises:
            NotFoundUpstream: there is no such model, as the upstream said now or a moment ago.
            Offline: not in the store, and the mirror asks nobody.
            UpstreamError: it could not be asked, and nothing stored can stand in.
        """
        await self._store.notice(name)
        if (held := self.held(name)) is not None:
            return await self._keep_held(name, held)
        kept = self._kept(name)
        if kept is not None and (self._offline or kept.age_s < self._cache.manifest_ttl):
            return kept
        if self._offline:
            raise Offline(f"{name.short} is not in the store, and the mirror is offline")
        if kept is not None and time.monotonic() < self._down_until.get(name.host.lower(), 0.0):
            return self._stale(name, kept)
        question = (
            name,
            self._upstreams.chain.before,
        )  # as it is spelled: upstream another spelling may be another model
        return await self._asking.ask(question, lambda: self._ask_or_fall_back(name, kept))

    def held(self, name: ModelName) -> Meaning | None:
        """Return what people hold a tag at; None where it moves, or means something else because others put it there.

        The model may have gone since, for room.
        """
        held, stored = self._ledger.tags.held(name), self._store.find(name)
        return held if held is not None and (stored is None or stored.digest == held.digest) else None

    async def _keep_held(self, name: ModelName, held: Meaning) -> Answer:
        stored = self._store.find(name)
        manifest = self._store.read(stored) if stored else None
        if manifest is not None:
            return Answer(manifest, Served.HIT, 0.0)
        manifest = Manifest.parse(held.raw)
        try:
            await self._store.put_manifest(name, manifest)
        except StoreFull:
            return Answer(manifest, Served.PASS, 0.0)
        return Answer(manifest, Served.HIT, 0.0)

    async def by_digest(self, name: ModelName, digest: Digest) -> Answer:
        """Return a manifest by its digest; it never changes, so what is stored is right. Raises as ``by_tag``."""
        manifest = self._store.by_digest(digest)
        if manifest is not None:
            return Answer(manifest, Served.HIT, 0.0)
        if self._offline:
            raise Offline(f"{digest} is not in the store, and the mirror is offline")
        question = (name.host.lower(), name.repository, digest, self._upstreams.chain.before)
        return await self._asking.ask(question, lambda: self._fetch(name, digest))

    async def _fetch(self, name: ModelName, digest: Digest) -> Answer:
        key = f"{name}@{digest}"
        await self._refuse_unknown(key, f"{digest} of {name.repository}")
        try:
            manifest = await self._upstreams.of(name).manifest(name.repository, str(digest))
        except NotFoundUpstream:
            await self._note_unknown(key)
            raise
        try:
            await self._store.put_small_blob(manifest.raw)
        except StoreFull:
            return Answer(manifest, Served.PASS, 0.0)
        return Answer(manifest, Served.MISS, 0.0)

    async def refresh(self, name: ModelName) -> Manifest:
        """Ask the upstream now, keep its answer, return it; of a tag that is held, what it is held at.

        Raises UpstreamError, Offline.
        """
        if self._offline:
            raise Offline(f"{name.short} cannot be asked for: the mirror is offline")
        if (held := self.held(name)) is not None:
            return (await self._keep_held(name, held)).manifest
        return (await self._ask(name, brief=False, keep=True)).manifest

    def _kept(self, name: ModelName) -> Answer | None:
        stored = self._store.find(name)
        manifest = self._store.read(stored) if stored else None
        if manifest is None:
            stored = self._store.extra.find_whole(name)
            manifest = self._store.extra.manifest(stored) if stored else None
        if stored is None or manifest is None:
            return None
        checked = self._ledger.checked_at(stored.name)
        age_s = (self._now() - checked).total_seconds() if checked else float("inf")
        return Answer(manifest, Served.HIT, age_s if age_s >= 0 else float("inf"))

    def _stale(self, name: ModelName, kept: Answer) -> Answer:
        """What to serve when the upstream cannot be asked: rather a model that is whole than the newest word of it."""
        return Answer(self._whole(name) or kept.manifest, Served.STALE, kept.age_s)

    def _whole(self, name: ModelName) -> Manifest | None:
        whole, extra = self._store.complete.find(name), self._store.extra
        if whole is not None:
            return self._store.complete.read(whole)
        theirs = extra.find_whole(name)
        return extra.manifest(theirs) if theirs else None

    async def _ask_or_fall_back(self, name: ModelName, kept: Answer | None) -> Answer:
        if kept is None:
            await self._refuse_unknown(str(name), name.short)
        try:
            return await self._ask(name, brief=kept is not None, keep=False)
        except NotFoundUpstream:
            if kept is None:
                await self._note_unknown(str(name))
                raise
            return self._stale(name, kept)
        except UpstreamError as error:
            if kept is None:
                raise
            if isinstance(error, UpstreamUnavailable | RateLimited):
                self._down_until[name.host.lower()] = time.monotonic() + self._cache.stale_hold
            return self._stale(name, kept)

    async def _refuse_unknown(self, key: str, what: str) -> None:
        if await self._unknown.has(key):
            raise NotFoundUpstream(f"{what}: not found upstream a moment ago")

    async def _note_unknown(self, key: str) -> None:
        await self._unknown.add(key, self._cache.negative_ttl)

    async def _ask(self, name: ModelName, *, brief: bool, keep: bool) -> Answer:
        """Ask, and keep the answer; where it is what a folder has that is only read, only if ``keep`` is true."""
        upstream = self._upstreams.of(name)
        theirs = self._store.extra.find_whole(name) if not keep else None
        known = self._store.find(name) or theirs
        spelled = known.name if known else name  # the upstream's spelling, whatever letter case a client uses
        manifest = await upstream.manifest(spelled.repository, spelled.tag, brief=brief)
        self._down_until.pop(name.host.lower(), None)
        await self._unknown.forget(str(name))
        same = known is not None and known.digest == manifest.digest
        try:
            if not same or known is not theirs:
                await self._store.put_manifest(spelled, manifest, unless=lambda: self.held(spelled) is not None)
        except StoreFull:
            return Answer(manifest, Served.PASS, 0.0)
        if (held := self.held(spelled)) is not None:  # since the question was asked
            return await self._keep_held(spelled, held)
        self._ledger.checked(spelled, self._now())
        return Answer(manifest, Served.HIT if same else Served.MISS, 0.0)
