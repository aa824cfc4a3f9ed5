"""Models of this store as one tar."""

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from mirror.bundles.contents import MAX_BLOBS, Contents, Model, sums
from mirror.bundles.members import Member, Members
from mirror.bundles.needs import demanded
from mirror.bundles.places import Own, blob_path, manifest_path
from mirror.errors import BadBundle, BrokenStore
from mirror.store import OpenBlob, Store
from mirror.threads import in_thread
from mirror.values import Digest, Manifest, ModelName

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """Models and their blobs, laid out as one tar. For the event loop's thread.

    The same models give the same bytes, always: a tar that was cut off can be gone on with. What is removed from
    the store while ``pieces`` runs is missed only when its turn comes.
    """

    members: Members
    _written: Mapping[str, bytes]
    """By path, the content of what is no blob."""
    _store: Store

    @classmethod
    def of(cls, store: Store, names: Iterable[ModelName], since: frozenset[Digest] = frozenset()) -> Self:
        """Lay out the models ``names`` with their blobs, without those of ``since``, which the other side has.

        Raises:
            BadBundle: no names, models that are not complete in this store, or more blobs than a bundle may have.
        """
        manifests = _manifests(store, names)
        every = demanded(manifests.items(), lambda blob: store.blobs.size(blob.digest), store.by_digest)
        blobs = {digest: size for digest, size in every.items() if digest not in since}
        if len(blobs) > MAX_BLOBS:
            raise BadBundle(f"{len(blobs)} blobs are too many for one bundle; take fewer models at once")
        models = tuple(Model(name=name, digest=one.digest, size=one.size) for name, one in manifests.items())
        contents = Contents(models=models, blobs=blobs, left_out=since & every.keys())
        files = [(blob_path(digest), digest, size) for digest, size in blobs.items()]
        files += [(manifest_path(name), one.digest, len(one.raw)) for name, one in manifests.items()]
        own = {
            Own.CONTENTS.value: contents.text(),
            Own.SUMS.value: sums((path, digest) for path, digest, _ in files),
        }
        first = [(path, Digest.of(content), len(content)) for path, content in own.items()]
        written = own | {manifest_path(name): one.raw for name, one in manifests.items()}
        return cls(Members.laid_out([*first, *files]), written, store)

    @property
    def total(self) -> int:
        """The bytes of the whole tar."""
        return self.members.total

    def describe(self) -> dict[str, object]:
        """Return the JSON form of ``members``."""
        return self.members.describe()

    async def pieces(self, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the tar from byte ``start`` on, at most 1 MiB at once. Of no blob more is held.

        Raises:
            BrokenStore: a blob is gone, or its bytes are not what its name says; its last piece is then withheld.
        """
        threads = ThreadPoolExecutor(1, thread_name_prefix="bundle")
        try:
            for member in self.members:
                if member.end > start:
                    async with aclosing(self._member(member, max(0, start - member.offset), threads)) as pieces:
                        async for piece in pieces:
                            if piece:
                                yield piece
        finally:
            threads.shutdown(wait=False)
        if start < self.total:
            yield bytes(self.total - max(start, self.members.end))

    async def _member(self, member: Member, skip: int, threads: ThreadPoolExecutor) -> AsyncGenerator[bytes, None]:
        head = member.head
        if skip < len(head):
            yield head[skip:]
        skip = max(0, skip - len(head))
        content = self._written.get(member.path)
        if content is not None:
            yield content[skip:]
        elif skip < member.size:
            with self._opened(member) as blob:
                async with aclosing(_read(blob, skip, threads)) as pieces:
                    async for piece in pieces:
                        yield piece
        yield bytes(member.padding)[max(0, skip - member.size) :]

    def _opened(self, member: Member) -> OpenBlob:
        blob = self._store.open_blob(member.digest)
        if blob is None:
            raise BrokenStore(f"{member.digest} is no longer in the store")
        if blob.size != member.size:
            blob.close()
            raise _damaged(member.digest)
        return blob


def _manifests(store: Store, names: Iterable[ModelName]) -> dict[ModelName, Manifest]:
    found, lacking = {}, set()
    for name in names:
        stored = store.complete.find(name)
        manifest = store.complete.read(stored) if stored else None
        if stored is None or manifest is None:
            lacking.add(name.short)
        else:
            found[stored.name] = manifest
    if lacking:
        raise BadBundle(f"not complete in this store: {', '.join(sorted(lacking))}")
    if not found:
        raise BadBundle("a bundle of no models was asked for")
    return dict(sorted(found.items()))


async def _read(blob: OpenBlob, start: int, threads: ThreadPoolExecutor) -> AsyncGenerator[bytes, None]:
    """Yield a blob's bytes; those of one that is read from its beginning are proven before the last piece."""
    hashed, at = sha256(), start

    def piece() -> bytes:
        found = os.pread(blob.fd, PIECE, at)
        if not start:
            hashed.update(found)
        return found

    while at < blob.size:
        try:
            found = await in_thread(threads, piece)
        except OSError as error:
            raise BrokenStore(f"cannot read {blob.digest}: {error.strerror}; run `mirror scrub`") from error
        at += len(found)
        ends = at >= blob.size
        if not found or not blob.sound or (ends and not start and hashed.hexdigest() != blob.digest.hex):
            raise _damaged(blob.digest)
        yield found


def _damaged(digest: Digest) -> BrokenStore:
    return BrokenStore(f"{digest} in the store is not what its name says; run `mirror scrub`")
