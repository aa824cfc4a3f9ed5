"""What tags meant before, and which of them people hold: kept in memory, written in batches."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db.batch import write_or_put_back
from mirror.db.engine import in_transaction
from mirror.db.instants import aware
from mirror.db.tables import tag_meanings
from mirror.events import Event, ModelRemoved, ModelReplaced, ModelStored, Reason
from mirror.values import Digest, InvalidDigest, Manifest, ModelName

log = structlog.get_logger(__name__)

_MOST = 6
"""Of one tag: five that it meant before, and the one it means."""
_LARGEST = 1 << 20
_MOST_BYTES = 32 << 20
_BY_PEOPLE = (Reason.ASKED, Reason.ELSEWHERE)


@dataclass(frozen=True, slots=True)
class Meaning:
    """A manifest that a tag means, or meant until ``replaced_at``; people hold the tag at it since ``held_at``.

    Instants are aware UTC; None: it was not replaced, it is not held.
    """

    digest: Digest
    raw: bytes
    replaced_at: datetime | None = None
    held_at: datetime | None = None


class TagHistory:
    """Manifests of tags that moved, in the order in which the tags came to mean them. For the event loop's thread.

    Of each tag the last six are kept, those of more than 1 MiB left out, and of all tags at most 32 MiB: then those go
    that were replaced first. One that is held stays. A database that cannot be written is tried again at the next
    flush; one that is lost costs the history and the holds, and no model.
    """

    kinds = (ModelReplaced, ModelStored, ModelRemoved)

    def __init__(self, engine: AsyncEngine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._clock = now
        self._known: dict[str, tuple[Meaning, ...]] = {}
        self._bytes = 0
        self._changed: set[str] = set()
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Read what earlier processes wrote; a row that is not what its digest says is left out."""
        found: dict[str, list[Meaning]] = {}

        async def read(connection: AsyncConnection) -> None:
            query = select(tag_meanings).order_by(tag_meanings.c.name, tag_meanings.c.place)
            for row in await connection.execute(query):
                try:
                    digest = Digest.parse(row.digest)
                except InvalidDigest:
                    continue
                if Digest.of(row.raw) == digest:
                    meaning = Meaning(digest, row.raw, aware(row.replaced_at), aware(row.held_at))
                    found.setdefault(row.name, []).append(meaning)

        await in_transaction(self._engine, read)
        self._known = {key: tuple(rows) for key, rows in found.items()}
        self._bytes = sum(len(row.raw) for rows in found.values() for row in rows)

    def hear(self, event: Event) -> None:
        """Take note of one piece of news.

        A tag that comes to mean something else than it is held at is held no more; what people remove begins anew.
        """
        match event:
            case ModelReplaced(name, former, manifest):
                self.replaced(name, former, manifest)
            case ModelStored(name, digest):
                held = self.held(name)
                if held is not None and held.digest != digest:
                    self.release(name)
            case ModelRemoved(name, reason=reason) if reason in _BY_PEOPLE and str(name.folded) in self._known:
                self._set(str(name.folded), ())
            case _:
                pass

    def meanings(self, name: ModelName) -> tuple[Meaning, ...]:
        """Return what a tag is known to have meant, the oldest first, whatever the letter case of its name."""
        return self._known.get(str(name.folded), ())

    def held(self, name: ModelName) -> Meaning | None:
        """Return where people put a tag to stay; None for one that moves with its upstream. Also for other threads."""
        return next((one for one in self.meanings(name) if one.held_at is not None), None)

    def replaced(self, name: ModelName, former: Manifest, manifest: Manifest) -> None:
        """A tag means another manifest now. One that people put it back to keeps its place, others become the last."""
        held = self.held(name)
        back = held is not None and held.digest == manifest.digest
        rows = {one.digest: one for one in self.meanings(name)}
        old = rows.get(former.digest) or Meaning(former.digest, former.raw)
        rows[former.digest] = replace(old, replaced_at=self._clock(), held_at=None)
        new = rows.get(manifest.digest) or Meaning(manifest.digest, manifest.raw)
        if not back:
            rows = {digest: replace(one, held_at=None) for digest, one in rows.items() if digest != manifest.digest}
            new = replace(new, held_at=None)
        rows[manifest.digest] = replace(new, replaced_at=None)
        self._set(str(name.folded), rows.values(), manifest.digest)

    def hold(self, name: ModelName, digest: Digest, raw: bytes) -> None:
        """People put a tag at a manifest, where it is to stay; one that is not known yet becomes the last."""
        rows = {one.digest: replace(one, held_at=None) for one in self.meanings(name)}
        rows[digest] = replace(rows.get(digest) or Meaning(digest, raw), held_at=self._clock())
        self._set(str(name.folded), rows.values(), digest)

    def release(self, name: ModelName) -> bool:
        """Let a tag move with its upstream again; False where it was not held."""
        if self.held(name) is None:
            return False
        self._set(str(name.folded), (replace(one, held_at=None) for one in self.meanings(name)))
        return True

    def restore(self, name: ModelName, meanings: Iterable[Meaning]) -> None:
        """Know of a tag what ``meanings`` gave, because what was begun since came to nothing."""
        self._set(str(name.folded), meanings)

    async def flush(self) -> None:
        """Write what changed since the last time, also where another flush is under way."""
        async with self._writing:
            changed, self._changed = self._changed, set()
            if not changed:
                return
            rows = [
                {"name": key, "digest": str(one.digest), "place": place, "raw": one.raw}
                | {"replaced_at": one.replaced_at, "held_at": one.held_at}
                for key in changed
                for place, one in enumerate(self._known.get(key, ()))
            ]

            async def write(connection: AsyncConnection) -> None:
                old = delete(tag_meanings).where(tag_meanings.c.name == bindparam("key"))
                await connection.execute(old, [{"key": key} for key in changed])
                if rows:
                    await connection.execute(insert(tag_meanings), rows)

            await write_or_put_back(self._engine, write, lambda: self._changed.update(changed), "tags")

    def _set(self, key: str, rows: Iterable[Meaning], stays: Digest | None = None) -> None:
        """Keep these rows of one tag, as far as they are in bounds; ``stays`` is not dropped for their number."""
        kept = [one for one in rows if len(one.raw) <= _LARGEST or one.held_at is not None]
        while len(kept) > _MOST:
            kept.remove(next(one for one in kept if one.digest != stays and one.held_at is None))
        self._put(key, kept)
        while self._bytes > _MOST_BYTES:
            loose = [(tag, one) for tag, some in self._known.items() for one in some if one.held_at is None]
            if not loose:
                break
            tag, oldest = min(loose, key=lambda row: row[1].replaced_at or self._clock())
            self._put(tag, [one for one in self._known[tag] if one is not oldest])

    def _put(self, key: str, rows: Iterable[Meaning]) -> None:
        self._bytes -= sum(len(one.raw) for one in self._known.pop(key, ()))
        kept = tuple(rows)
        if kept:
            self._known[key] = kept
            self._bytes += sum(len(one.raw) for one in kept)
        self._changed.add(key)
