"""What the plan is made from, gathered from the store and the ledger."""

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from mirror.db import Ledger
from mirror.keep.plan import Facts, Kind, Loose, ModelFacts
from mirror.store import Census, Layout, Pins, Store, StoredManifest
from mirror.store.manifests import expanded, read_manifest
from mirror.store.ollama import AT_WORK_S, GRACE_S
from mirror.values import Digest, InvalidManifest, Manifest, ModelName


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The store's index at one moment, so that a thread can look at it in peace.

    ``coming`` are the sizes of what is on its way in; models of which all that lacks is coming stay, and those of which
    a blob is being read. ``held`` are all blobs that stay whoever names them: those, what somebody is about to have
    named, and what is named where no name finds it.
    """

    models: Mapping[ModelName, tuple[StoredManifest, ...]]
    staged: tuple[StoredManifest, ...]
    read: Set[Digest]
    held: Set[Digest]
    coming: Mapping[Digest, int]

    @classmethod
    def of(cls, store: Store, coming: Mapping[Digest, int]) -> "Snapshot":
        """Take it; on the event loop's thread."""
        shelves = (store.complete, store.staged)
        models: dict[ModelName, tuple[StoredManifest, ...]] = {}
        for shelf in shelves:
            for stored in shelf:
                models[stored.name.folded] = (*models.get(stored.name.folded, ()), stored)
        twins = {blob.digest for shelf in shelves for stored in shelf.twins for blob in store.expanded(stored)}
        read = store.blobs.open_ones
        held = read | coming.keys() | twins | store.mentioned | store.blobs.wanted
        return cls(models, tuple(store.staged), read, held, dict(coming))


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Makes facts from a snapshot and a look at the disk. ``read_at`` says when a blob was last read, if lately."""

    layout: Layout
    ledger: Ledger
    pins: Pins
    read_at: Callable[[Digest], datetime | None]
    shared: bool
    drop_theirs: bool

    def gather(self, snapshot: Snapshot, found: Census, free: int | None, now: datetime) -> Facts:
        """Return the facts; blocks for some tenths of a second where there are thousands of models."""
        sizes = {digest: one.size for some in (found.partials, found.blobs) for digest, one in some.items()}
        models = [self._model(name, stored, snapshot, found) for name, stored in snapshot.models.items()]
        to_write = {digest: max(0, size - sizes.get(digest, 0)) for digest, size in snapshot.coming.items()}
        return Facts(
            models,
            sizes,
            snapshot.held | self._theirs(found, now),
            (*self._loose(models, found), *self._leftovers(snapshot, found)),
            promised=sum(to_write.values()),
            free=None if free is None else free - sum(to_write.values()),
            now=now,
        )

    def _theirs(self, found: Census, now: datetime) -> Set[Digest]:
        """Blobs that an Ollama on the same tree may be about to name: it takes what it finds for pulled already.

        Those are the young ones and, while one of its pulls goes on, all of them.
        """
        if not self.shared:
            return frozenset()
        if now.timestamp() - found.ollama_at < AT_WORK_S:
            return found.blobs.keys()
        return {digest for digest, one in found.blobs.items() if now.timestamp() - one.written_at < GRACE_S}

    def _model(
        self, folded: ModelName, stored: tuple[StoredManifest, ...], snapshot: Snapshot, found: Census
    ) -> ModelFacts:
        blobs = frozenset(blob.digest for one in stored for blob in expanded(one, self._child))
        use = self.ledger.use(folded)
        used_at = max(one.written_at for one in stored)  # coming in is a use
        if use.used_at is not None:
            used_at = max(used_at, use.used_at)
        kept_for = self.pins.why(stored[0].name)
        lacking = blobs - found.blobs.keys()
        if kept_for is None and lacking and lacking <= snapshot.coming.keys():
            kept_for = "being filled"  # one that only shares a licence with such a model is not
        if kept_for is None and not snapshot.read.isdisjoint(blobs):
            kept_for = "being read"
        if kept_for is None and self.shared and not self.drop_theirs:
            ours = any(str(one.digest) == use.stored_digest for one in stored)
            kept_for = None if ours else "an Ollama brought it in"
        return ModelFacts(stored[0].name, blobs, used_at, kept_for)

    def _child(self, digest: Digest) -> Manifest | None:
        with suppress(OSError, InvalidManifest):
            return read_manifest(self.layout.blob(digest))
        return None

    def _loose(self, models: list[ModelFacts], found: Census) -> Iterator[Loose]:
        named = set().union(*(model.blobs for model in models))
        for digest, one in found.blobs.items():
            if digest not in named:
                touched_at, read_at = _instant(one.written_at), self.read_at(digest)
                touched_at = max(touched_at, read_at) if read_at else touched_at
                yield Loose(Kind.BLOB, f"sha256:{digest.short}", one.size, touched_at, digest)

    def _leftovers(self, snapshot: Snapshot, found: Census) -> Iterator[Loose]:
        for digest, one in found.partials.items():
            yield Loose(Kind.PARTIAL, f"sha256:{digest.short}", one.size, _instant(one.written_at), digest)
        for path, one in found.quarantine.items():
            yield Loose(Kind.QUARANTINE, path.name, one.size, _instant(one.written_at))
        for stored in snapshot.staged:
            used_at = self.ledger.use(stored.name).used_at or stored.written_at
            resumed = [found.partials[blob.digest].written_at for blob in stored.blobs if blob.digest in found.partials]
            touched_at = max(stored.written_at, used_at, *map(_instant, resumed))
            if self.pins.why(stored.name) is None and not _being_filled(stored, snapshot):
                yield Loose(Kind.MANIFEST, stored.name.short, 0, touched_at, name=stored.name)


def _being_filled(stored: StoredManifest, snapshot: Snapshot) -> bool:
    return any(blob.digest in snapshot.coming for blob in stored.blobs)


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(max(0.0, min(seconds, _LATEST)), UTC)


_LATEST = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
"""A file system can say that a file is from a year that has no name here."""
