"""Whether a model may go to who asks for it: the policy's word, and what of the model that has to know."""

import json
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from mirror.access import ANONYMOUS, Facts, Policy, Verdict
from mirror.config import parse_count
from mirror.errors import NotAllowed
from mirror.fill.fills import Fills
from mirror.store import Store, StoredManifest
from mirror.values import Descriptor, Digest, Manifest, ModelName

_LICENSE = "application/vnd.ollama.image.license"
_LARGEST_TEXT = 1 << 20
_MOST_FACTS = 1000


class Admission:
    """Asks the policy about models and blobs, for a user. For the event loop's thread.

    Where a rule is on size, parameters or licenses, the manifest is looked at, and of the model's blobs the config
    and the licenses, which are fetched for that; what they say is remembered, as a manifest never changes.
    """

    def __init__(self, policy: Policy, store: Store, fills: Fills) -> None:
        self._policy = policy
        self._store = store
        self._fills = fills
        self._facts: OrderedDict[Digest, Facts] = OrderedDict()

    @property
    def empty(self) -> bool:
        """Whether everything is allowed to everybody, so that nothing has to be looked at."""
        return self._policy.empty

    def hides(self, name: ModelName, user: str = ANONYMOUS) -> bool:
        """Say whether a model is not even listed for a user, because its name alone decides."""
        return not self._policy.empty and self._policy.decide(name, user).refused

    def before(self, name: ModelName, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed where the name decides, before anybody is asked for the model."""
        if not self._policy.empty:
            _insist(self._policy.decide(name, user))

    async def after(self, name: ModelName, manifest: Manifest, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed where the policy refuses a model with this manifest; else it may be served.

        Raises what fetching a blob raises, where one must be looked at.
        """
        if self._policy.empty:
            return
        verdict = self._policy.decide(name, user)
        if verdict.undecided:
            verdict = self._policy.decide(name, user, await self._facts_of(name, manifest))
        _insist(verdict)

    async def by_digest(self, asked: ModelName, manifest: Manifest, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed for a manifest asked for by its digest, unless a model it is known to be is allowed."""
        if self._policy.empty:
            return
        shelves = (self._store.complete, self._store.staged)
        names = {found.name for shelf in shelves if (found := shelf.find_digest(manifest.digest)) is not None}
        verdict = self._policy.decide_blob(names or {asked}, user)
        if verdict.undecided:
            facts = await self._facts_of(asked, manifest)
            verdict = self._policy.decide_blob(names or {asked}, user, lambda _: facts)
        _insist(verdict)

    async def blob(self, asked: ModelName, digest: Digest, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed for a blob of which every model is refused that is known to name it.

        ``asked`` is the repository under which it is asked for, which counts where no model is known; its tag does not.
        """
        if self._policy.empty:
            return
        stored = [*self._store.staged.naming(digest), *self._store.complete.naming(digest)]
        names = [one.name for one in stored] or [asked]
        verdict = self._policy.decide_blob(names, user)
        if verdict.undecided:
            facts = await self._facts_of_all(stored)
            verdict = self._policy.decide_blob(names, user, facts.get)
        if verdict.undecided:
            raise NotAllowed(
                f"{digest.short} is refused: a rule asks what model it is of, so ask for its manifest first"
            )
        _insist(verdict)

    async def _facts_of_all(self, stored: Iterable[StoredManifest]) -> dict[ModelName, Facts]:
        found: dict[ModelName, Facts] = {}
        for one in stored:
            manifest = self._store.read(one)
            if manifest is not None:
                found[one.name] = await self._facts_of(one.name, manifest)
        return found

    async def _facts_of(self, name: ModelName, manifest: Manifest) -> Facts:
        known = self._facts.get(manifest.digest)
        if known is not None:
            self._facts.move_to_end(manifest.digest)
            return known
        config = await self._text(name, manifest.config) if manifest.config else ""
        licenses = [await self._text(name, layer) for layer in manifest.layers if layer.media_type == _LICENSE]
        size = sum(blob.size for blob in manifest.blobs)
        facts = Facts(size=size, parameters=_parameters(config), licenses=tuple(licenses))
        self._facts[manifest.digest] = facts
        if len(self._facts) > _MOST_FACTS:
            self._facts.popitem(last=False)
        return facts

    async def _text(self, name: ModelName, blob: Descriptor) -> str:
        """Return what a small blob says, fetched if need be; nothing of one that is too large for what it should be."""
        if blob.size > _LARGEST_TEXT:
            return ""
        while (fill := await self._fills.open(name, blob.digest, blob.size)) is not None:
            fill.wanted += 1
            try:
                await fill.ended.wait()
            finally:
                fill.wanted -= 1
                self._fills.left(fill)
            if fill.error is not None:
                raise fill.error
        raw = self._store.blobs.read(blob.digest, _LARGEST_TEXT)
        return (raw or b"").decode("utf-8", "replace")


def _insist(verdict: Verdict) -> None:
    if verdict.refused:
        raise NotAllowed(verdict.why)


def _parameters(config: str) -> int | None:
    """Return what a config blob says of the number of parameters (types/model/config.go, model_type: "8.0B")."""
    said: Any = None
    with suppress(ValueError, RecursionError):
        said = json.loads(config)
    with suppress(ValueError):
        return parse_count(said.get("model_type")) if isinstance(said, dict) else None
    return None
