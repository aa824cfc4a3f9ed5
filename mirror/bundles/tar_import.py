"""Models out of a tar, which may come from a file, a pipe or the network."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import TypeVar

from mirror.bundles.contents import MAX_BLOBS, MAX_OWN_BYTES, Contents, parse_sums
from mirror.bundles.intake import Imported, Intake, Reserve, opened_intake
from mirror.bundles.places import Own, place
from mirror.bundles.saving import Report
from mirror.bundles.staging import Staged
from mirror.bundles.stream import TarStream
from mirror.bundles.tar import Header
from mirror.errors import BadBundle
from mirror.store import Store
from mirror.values import MAX_MANIFEST_BYTES, Digest, ModelName

Key = TypeVar("Key")


async def import_tar(
    chunks: AsyncIterator[bytes], store: Store, reserve: Reserve, report: Report, *, size: int | None = None
) -> Imported:
    """Take in every model of a tar, ours or one of OLLAMA_MODELS' ``blobs`` and ``manifests``: all of them or none.

    ``chunks`` is read forward only and to its end; ``size`` is how many bytes it has, where that is known, and is
    only passed on to ``report``. Blobs that no model in the tar names are left out. Whatever ``chunks`` raises goes
    through. On any failure, cancellation included, the store is as it was. Once all is proven a failure, as of the
    disk, may leave whole models or unnamed blobs, and nothing false.

    Raises:
        BadBundle: the tar is not what it should be; the text says where.
        StoreFull: there is no room, or the store cannot be written.
        BrokenStore: a blob that the models share with others was found damaged.
    """
    stream = TarStream(chunks, lambda done: report(done, size))
    async with opened_intake(store, reserve) as intake:
        arrivals = _Arrivals(stream, intake)
        while (header := await stream.next()) is not None:
            await arrivals.take(header)
        arrivals.check()
        return await intake.take_in()


class _Arrivals:
    """What has come out of a tar, and whether that is what the tar says of itself."""

    def __init__(self, stream: TarStream, intake: Intake) -> None:
        self._stream = stream
        self._intake = intake
        self._blobs: dict[Digest, int] = {}
        self._sums: dict[str, Digest] = {}
        self._contents: Contents | None = None
        self._said_sums: dict[str, Digest] | None = None

    async def take(self, header: Header) -> None:
        """Take the file that was just reached. Raises BadBundle, StoreFull."""
        path = header.path.removeprefix("./")
        found = place(path)
        match found:
            case Digest():
                await self._take_blob(found, header.size)
                self._sums[path] = found
            case ModelName():
                raw = await self._small(header, MAX_MANIFEST_BYTES)
                self._intake.add_model(found, raw)
                self._sums[path] = Digest.of(raw)
            case Own.CONTENTS:
                _only_one(self._contents, found)
                self._contents = Contents.parse(await self._small(header, MAX_OWN_BYTES))
                await self._intake.cover(self._contents.blobs)
            case Own.SUMS:
                _only_one(self._said_sums, found)
                self._said_sums = parse_sums(await self._small(header, MAX_OWN_BYTES))
            case None:
                return  # the next header is looked for behind it

    def check(self) -> None:
        """Compare what came with what the tar says. Raises BadBundle."""
        if self._said_sums is not None:
            _same(Own.SUMS, self._said_sums, self._sums)
        if self._contents is not None:
            models = {str(one.name): one.digest for one in self._contents.models}
            _same(Own.CONTENTS, models, {str(name): one.digest for name, one in self._intake.models})
            _same(Own.CONTENTS, self._contents.blobs, self._blobs)

    async def _take_blob(self, digest: Digest, size: int) -> None:
        if digest in self._blobs:
            raise BadBundle(f"{digest} is there twice")
        if len(self._blobs) >= MAX_BLOBS:
            raise BadBundle(f"there are more than {MAX_BLOBS} blobs")
        self._blobs[digest] = size
        if await self._intake.has(digest, size):
            return
        await self._intake.cover({digest: size})
        staged = Staged(self._intake.path(digest))
        try:
            while portion := await self._stream.portion():
                await self._intake.in_thread(partial(staged.write, portion))
            await self._intake.in_thread(partial(staged.prove, digest))
        finally:
            await self._intake.in_thread(staged.close)  # there, for it may still be writing when our patience ends
        self._intake.landed(digest, size)

    async def _small(self, header: Header, most: int) -> bytes:
        if header.size > most:
            raise BadBundle(f"{header.path} has {header.size} bytes: at most {most} are read")
        return await self._stream.content()


def _only_one(before: object, found: Own) -> None:
    if before is not None:
        raise BadBundle(f"{found.value} is there twice")


def _same(own: Own, said: Mapping[Key, object], came: Mapping[Key, object]) -> None:
    if said != came:
        first = next(key for key in (*said, *came) if said.get(key) != came.get(key))
        raise BadBundle(f"{own.value} disagrees with what came: {first}")
