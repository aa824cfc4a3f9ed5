"""Whether a model may go to who asks for it: the policy's word, and what of the model that has to know."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from mirror.access import ANONYMOUS, Facts, Policy, Verdict, is_handed
from mirror.config import parse_count
from mirror.errors import DigestMismatch, MirrorError, NotAllowed, StoreFull
from mirror.fill.fills import Fills
from mirror.store import Store, StoredManifest
from mirror.upstream import Upstreams
from mirror.values import ByteRange, Descriptor, Digest, Manifest, ModelName

_LICENSE = "application/vnd.ollama.image.license"
_LARGEST_CONFIG = 1 << 20
_LICENSE_BYTES = 256 << 10
"""Most of all its licenses together that is read of a model; one that is longer says nothing."""
_MOST_FACTS = 128
_MOST_LATELY = 256


class Admission:
    """Asks the policy about models and blobs, for a user. For the event loop's thread.

    Where a rule is on size, parameters or licenses, the manifest is looked at, and of the model's blobs the config
    and the licenses where a rule is on those, which are fetched for that; what they say is remembered, as a manifest
    never changes. A manifest that lists others is judged by its name alone, and each of those by itself.

    While there is a policy, a blob or a manifest that is asked for by its digest goes out only as part of a model that
    is known to have it and allowed: one in the store, or one whose manifest was served lately.
    """

    def __init__(self, policy: Policy, store: Store, fills: Fills, upstreams: Upstreams) -> None:
        self._policy = policy
        self._store = store
        self._fills = fills
        self._upstreams = upstreams
        self._facts: OrderedDict[Digest, Facts] = OrderedDict()
        self._lately: OrderedDict[tuple[ModelName, Digest], Manifest] = OrderedDict()

    def change(self, policy: Policy) -> None:
        """Go by another policy from now on; what it asks of models may be other things, and is read anew."""
        self._policy = policy
        self._facts.clear()

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

    def before_named(self, text: str, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed for a model as a client of an Ollama calls it. Raises InvalidModelName."""
        name = ModelName.parse(text, host=self._upstreams.routes.main)
        if is_handed(name):
            raise NotAllowed(f"{text} is the name of a model on its way, and of no other use")
        # m:local means m:latest, but only as one that is here (Ollama's internal/modelref).
        for meant in (name, name.with_tag("latest")) if name.tag.lower() == "local" else (name,):
            self.before(self._upstreams.routes.filed(meant), user)

    async def after(self, name: ModelName, manifest: Manifest, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed where the policy refuses a model with this manifest; else it may be served.

        Raises what fetching a blob raises, where one must be looked at.
        """
        if self._policy.empty:
            return
        _insist(await self._verdict(name, manifest, user))
        self._remember(name, manifest)

    def before_digest(self, asked: ModelName, digest: Digest, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed for a manifest asked for by its digest, unless a model may have it by its name."""
        if self._policy.empty:
            return
        names = self._having(digest)
        verdicts = [self._policy.decide(name, user) for name in names]
        if all(verdict.refused for verdict in verdicts):
            for verdict in verdicts:
                _insist(verdict)
            raise NotAllowed(
                f"{asked.repository}@{digest.short} is refused: there are rules, so ask for it by its tag first"
            )

    async def license_of(self, name: ModelName, manifest: Manifest) -> str:
        """Return the text of a model's first license, fetched if need be; empty where it has none, or a very long one.

        Raises what fetching a blob raises.
        """
        layer = next((one for one in manifest.layers if one.media_type == _LICENSE), None)
        return await self._text(name, layer, _LICENSE_BYTES) if layer is not None else ""

    async def after_digest(self, manifest: Manifest, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed unless a model that is known to have this manifest is allowed. Else as ``after``."""
        if self._policy.empty:
            return
        names = self._having(manifest.digest)
        await self._insist_on_one(((name, manifest) for name in names), manifest.digest, user)
        for name in names:
            self._remember(name, manifest)

    async def blob(self, asked: ModelName, digest: Digest, user: str = ANONYMOUS) -> None:
        """Raise NotAllowed for a blob unless a model known to name it is allowed; those of ``asked`` come first.

        Raises what fetching a blob raises, where one must be looked at and no other model decides.
        """
        if self._policy.empty:
            return
        known = sorted(self._naming(digest), key=lambda one: one[0].repository.lower() != asked.repository.lower())
        await self._insist_on_one(known, digest, user)

    async def _insist_on_one(self, models: Iterable[tuple[ModelName, Manifest]], digest: Digest, user: str) -> None:
        """Raise unless one of the models is allowed."""
        refusal: NotAllowed | None = None
        trouble: MirrorError | None = None
        for name, manifest in models:
            try:
                _insist(await self._verdict(name, manifest, user))
            except NotAllowed as error:
                refusal = refusal or error
            except MirrorError as error:
                trouble = trouble or error
            else:
                return
        ask_first = NotAllowed(
            f"{digest.short} is refused: there are rules, so ask for the manifest of its model first"
        )
        raise trouble or refusal or ask_first

    def _remember(self, name: ModelName, manifest: Manifest) -> None:
        """Know for a while that a model has this manifest, though it may not be kept; the policy judges it anew."""
        self._lately[name.folded, manifest.digest] = manifest
        if len(self._lately) > _MOST_LATELY:
            self._lately.popitem(last=False)

    async def _verdict(self, name: ModelName, manifest: Manifest, user: str) -> Verdict:
        verdict = self._policy.decide(name, user)
        if not verdict.undecided or manifest.children:
            return verdict
        return self._policy.decide(name, user, await self._facts_of(name, manifest))

    def _having(self, digest: Digest) -> list[ModelName]:
        """Return the models known to have a manifest, by itself or in the list that theirs is."""
        lately = [name for name, own in self._lately if own == digest]
        listing = [
            name for (name, _), one in self._lately.items() if any(child.digest == digest for child in one.children)
        ]
        shelves = (self._store.staged, self._store.complete)
        stored = [one.name for shelf in shelves for one in shelf if one.digest == digest]
        indexes = [one.name for shelf in shelves for one in shelf.indexes() if _names(one, digest)]
        others = [one.name for one in self._store.extra.models() if one.digest == digest or _names(one, digest)]
        return list(dict.fromkeys((*stored, *indexes, *others, *lately, *listing)))

    def _naming(self, digest: Digest) -> Iterator[tuple[ModelName, Manifest]]:
        """Yield the models known to name a blob, each with the manifest by which it does."""
        shelves = (self._store.staged, self._store.complete)
        for stored in (one for shelf in shelves for one in shelf.naming(digest)):
            if (manifest := self._store.read(stored)) is not None:
                yield from self._judged_by(stored.name, manifest, digest)
        for stored in (one for shelf in shelves for one in shelf.indexes()):
            if (manifest := self._store.read(stored)) is not None:
                yield from self._children(stored.name, manifest, digest)
        for stored in self._store.extra.models():
            if _names(stored, digest) and (manifest := self._store.extra.manifest(stored)) is not None:
                yield from self._judged_by(stored.name, manifest, digest)
        for (name, _), manifest in self._lately.items():
            if any(blob.digest == digest for blob in manifest.blobs):
                yield from self._judged_by(name, manifest, digest)

    def _judged_by(self, name: ModelName, manifest: Manifest, digest: Digest) -> Iterator[tuple[ModelName, Manifest]]:
        """A blob that is itself one of the manifests in a list is judged by that."""
        if not any(child.digest == digest for child in manifest.children):
            yield name, manifest
        elif (child := self._store.by_digest(digest)) is not None:
            yield name, child

    def _children(self, name: ModelName, index: Manifest, digest: Digest) -> Iterator[tuple[ModelName, Manifest]]:
        for one in index.children:
            child = self._store.by_digest(one.digest)
            if child is not None and any(blob.digest == digest for blob in child.blobs):
                yield name, child

    async def _facts_of(self, name: ModelName, manifest: Manifest) -> Facts:
        known = self._facts.get(manifest.digest)
        if known is not None:
            self._facts.move_to_end(manifest.digest)
            return known
        config, licenses = "", []
        if manifest.config and self._policy.asks_parameters:
            config = await self._text(name, manifest.config, _LARGEST_CONFIG)
        if self._policy.asks_licenses:
            left = _LICENSE_BYTES
            for layer in {one.digest: one for one in manifest.layers if one.media_type == _LICENSE}.values():
                licenses.append(await self._text(name, layer, left))
                left -= min(layer.size, left)
        size = sum(blob.size for blob in manifest.blobs)
        facts = Facts(size=size, parameters=_parameters(config), licenses=tuple(licenses))
        self._facts[manifest.digest] = facts
        if len(self._facts) > _MOST_FACTS:
            self._facts.popitem(last=False)
        return facts

    async def _text(self, name: ModelName, blob: Descriptor, limit: int) -> str:
        """Return what a small blob says, fetched if need be; nothing of one of more than ``limit`` bytes."""
        if blob.size > limit:
            return ""
        try:
            raw = self._read(blob) or await self._fetched(name, blob)
        except StoreFull:
            raw = await self._passed_through(name, blob)
        return raw.decode("utf-8", "replace")

    def _read(self, blob: Descriptor) -> bytes | None:
        return self._store.blobs.read(blob.digest, blob.size) or self._store.extra.read(blob.digest, blob.size)

    async def _fetched(self, name: ModelName, blob: Descriptor) -> bytes:
        while (fill := await self._fills.open(name, blob.digest, blob.size)) is not None:
            fill.wanted += 1
            try:
                await fill.ended.wait()
            finally:
                fill.wanted -= 1
                self._fills.left(fill)
            if fill.error is not None:
                raise fill.error
        return self._read(blob) or b""

    async def _passed_through(self, name: ModelName, blob: Descriptor) -> bytes:
        """Read it from upstream without keeping it, for there is no room."""
        upstream = self._upstreams.of(name)
        address = await upstream.locate(name.repository, blob.digest, blob.size)
        async with upstream.stream(address, ByteRange(0, blob.size)) as chunks:
            raw = b"".join([chunk async for chunk in chunks])
        if (got := Digest.of(raw)) != blob.digest:
            raise DigestMismatch(blob.digest, got)
        return raw


def _names(stored: StoredManifest, digest: Digest) -> bool:
    return any(blob.digest == digest for blob in stored.blobs)


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
