"""Files of batches: rows in the database, their bytes in a folder of the state."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import RowMapping, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.batches.batch import BatchFile, TooLarge
from mirror.batches.pages import Asked, page_of
from mirror.config import render_size
from mirror.db.instants import aware
from mirror.db.tables import batch_files as table
from mirror.prompts import PromptsUnusable, transacted
from mirror.threads import in_thread

log = structlog.get_logger(__name__)

_PART = ".part"


class Draft:
    """A file that is being written; gone with its context unless it was kept. ``blank``: nothing of it can be seen."""

    def __init__(self, files: "Files", id_: str, limit: int | None) -> None:
        self.id = id_
        self.size = 0
        self.blank = True
        self._files = files
        self._limit = limit
        self._part = files.path(id_).with_name(f"{id_}{_PART}")
        self._file = self._part.open("wb", buffering=0)

    async def write(self, chunk: bytes) -> None:
        """Append bytes. Raises TooLarge, OSError."""
        if self._limit is not None and self.size + len(chunk) > self._limit:
            raise TooLarge(f"the file has more than {render_size(self._limit)}, which prompts.file_size allows")
        self._files.reserve(len(chunk), bounded=self._limit is not None)
        self.size += len(chunk)
        self.blank = self.blank and not chunk.strip()
        await self._files.in_thread(lambda: self._append(chunk))

    def _append(self, chunk: bytes) -> None:
        """Write all of it: a file without a buffer takes what there is room for, and says so only by a number."""
        left = memoryview(chunk)
        while left:
            left = left[self._file.write(left) :]

    async def place(self) -> None:
        """Give it its name: all of it is on the disk then."""
        await self._files.in_thread(self._place)

    def _place(self) -> None:
        os.fsync(self._file.fileno())
        self._part.rename(self._files.path(self.id))

    def drop(self) -> None:
        """Close it; remove what has no name of its own."""
        self._file.close()
        if self._part.exists():
            self._part.unlink()
            self._files.reserve(-self.size, bounded=False)


class Files:
    """All files. For the event loop's thread. What reads or writes rows raises PromptsUnusable."""

    def __init__(
        self,
        engine: AsyncEngine,
        folder: Path,
        threads: Executor,
        *,
        largest: int,
        most_bytes: int,
        now: Callable[[], datetime],
    ) -> None:
        """A file that a client brings has ``largest`` bytes at most, and all together ``most_bytes``.

        Who removes a file, or begins to use one, holds ``in_use`` from looking until it is done.
        """
        self.in_use = asyncio.Lock()
        self._engine = engine
        self._folder = folder
        self._threads = threads
        self._largest = largest
        self._most_bytes = most_bytes
        self._now = now
        self._held = 0

    async def load(self) -> None:
        """Find out what there is, and remove what no row is about."""
        rows = await transacted(self._engine, self._sizes)
        self._held = sum(rows.values())
        lasting = self._engine.url.database != ":memory:"  # else the database could not be opened in this life
        try:
            await self.in_thread(lambda: _tidy(self._folder, rows if lasting else None))
        except OSError as error:
            log.warning("files of batches not tidied", folder=str(self._folder), problem=str(error))

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        """Do what the disk may take long for."""
        return await in_thread(self._threads, work)

    def path(self, id_: str) -> Path:
        """Return where the bytes of a file are."""
        return self._folder / id_

    def reserve(self, size: int, *, bounded: bool) -> None:
        """Count bytes that are about to be written. Raises TooLarge where they are ``bounded``."""
        if bounded and self._held + size > self._most_bytes:
            allowed = render_size(self._most_bytes)
            raise TooLarge(
                f"the files have {allowed} together, which is all that prompts.files_size allows; delete some"
            )
        self._held += size

    @asynccontextmanager
    async def draft(self, *, bounded: bool) -> AsyncIterator[Draft]:
        """Yield a new file; ``bounded``: a client brings it. Raises OSError."""
        one = Draft(self, f"file-{uuid4().hex}", self._largest if bounded else None)
        try:
            yield one
        finally:
            one.drop()

    def described(self, draft: Draft, user: str, name: str, purpose: str) -> BatchFile:
        """Return what the row of a file will say."""
        return BatchFile(id=draft.id, user=user, name=name, purpose=purpose, size=draft.size, created_at=self._now())

    async def keep(self, draft: Draft, user: str, name: str, purpose: str) -> BatchFile:
        """Keep what was written. Raises OSError."""
        file = self.described(draft, user, name, purpose)
        await draft.place()
        try:
            await transacted(self._engine, lambda connection: connection.execute(insertion(file)))
        except PromptsUnusable:
            await self.discard([file])
            raise
        return file

    async def find(self, id_: str) -> BatchFile | None:
        """Return a file by its id; None where there is none."""
        query = select(table).where(table.c.id == id_)

        async def read(connection: AsyncConnection) -> BatchFile | None:
            row = (await connection.execute(query)).mappings().first()
            return _file_of(row) if row is not None else None

        return await transacted(self._engine, read)

    async def page(self, asked: Asked, user: str | None, purpose: str | None) -> tuple[list[BatchFile], bool]:
        """Return a page of the files of a user, or of all, and whether there are more."""
        query = select(table)
        if user is not None:
            query = query.where(table.c.user == user)
        if purpose is not None:
            query = query.where(table.c.purpose == purpose)
        rows, more = await transacted(self._engine, lambda connection: page_of(connection, query, table, asked))
        return [_file_of(row) for row in rows], more

    async def remove(self, files: Collection[BatchFile]) -> None:
        """Forget files, and delete their bytes; those that another has just removed count no second time."""
        gone = delete(table).where(table.c.id.in_([one.id for one in files])).returning(table.c.id)

        async def write(connection: AsyncConnection) -> set[str]:
            return set((await connection.execute(gone)).scalars())

        ids = await transacted(self._engine, write)
        await self.discard([one for one in files if one.id in ids])

    async def discard(self, files: Collection[BatchFile]) -> None:
        """Delete the bytes of files that have no rows."""
        for one in files:
            self._held -= one.size
            path = self.path(one.id)
            with suppress(OSError):  # the next start removes it
                await self.in_thread(lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]

    async def forget_before(self, instant: datetime, kept: Collection[str]) -> None:
        """Forget those that are older than an instant, but for ``kept``."""
        old = select(table).where(table.c.created_at < instant, table.c.id.not_in(list(kept)))

        async def read(connection: AsyncConnection) -> list[BatchFile]:
            return [_file_of(row) for row in (await connection.execute(old.limit(1000))).mappings().all()]

        if found := await transacted(self._engine, read):
            await self.remove(found)

    async def _sizes(self, connection: AsyncConnection) -> dict[str, int]:
        rows = (await connection.execute(select(table.c.id, table.c.size))).all()
        return {str(id_): int(size) for id_, size in rows}


def insertion(file: BatchFile) -> Any:
    """Return what writes the row of a file."""
    return insert(table).values(
        id=file.id, user=file.user, name=file.name, purpose=file.purpose, size=file.size, created_at=file.created_at
    )


def _tidy(folder: Path, rows: Collection[str] | None) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name.endswith(_PART) or (rows is not None and path.name not in rows):
            path.unlink()


def _file_of(row: RowMapping) -> BatchFile:
    return BatchFile(
        id=row["id"],
        user=row["user"],
        name=row["name"],
        purpose=row["purpose"],
        size=row["size"],
        created_at=aware(row["created_at"]) or datetime.now(UTC),
    )
