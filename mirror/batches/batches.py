"""All batches: those under way in memory, every one in the database, which is written first."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.batches.batch import UNDER_WAY, Batch, BatchFile, NoSuchBatch, State, TooManyBatches, Wanted
from mirror.batches.files import insertion
from mirror.batches.pages import Asked, page_of
from mirror.config import Run
from mirror.db.instants import aware
from mirror.db.tables import batches as table
from mirror.prompts import forget_lines, transacted

_MOST, _MOST_OF_ONE = 1000, 100
_FIELDS: Mapping[State, str] = {one: f"{one}_at" for one in State if one is not State.VALIDATING}


class Batches:
    """Batches, which survive the process. For the event loop's thread; changes come one after another.

    What reads or writes raises PromptsUnusable; nothing has changed then. ``changed`` is set after every change.
    """

    def __init__(self, engine: AsyncEngine, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._now = now
        self._under_way: dict[str, Batch] = {}
        self._changes = asyncio.Lock()
        self.changed = asyncio.Event()

    async def load(self) -> None:
        """Read what is under way."""
        query = select(table).where(table.c.state.in_([one.value for one in UNDER_WAY]))

        async def read(connection: AsyncConnection) -> list[Batch]:
            return [_batch_of(row) for row in (await connection.execute(query)).mappings().all()]

        self._under_way = {one.id: one for one in await transacted(self._engine, read)}

    @property
    def under_way(self) -> list[Batch]:
        """Those that are not over, the oldest first."""
        return sorted(self._under_way.values(), key=lambda one: (one.created_at, one.id))

    async def ask(self, wanted: Wanted, user: str, asker: str) -> Batch:
        """Begin a batch. Raises TooManyBatches."""
        async with self._changes:
            if len(self._under_way) >= _MOST:
                raise TooManyBatches(f"{_MOST} batches are under way already; try again later")
            if sum(one.user == user for one in self._under_way.values()) >= _MOST_OF_ONE:
                raise TooManyBatches(f"{_MOST_OF_ONE} batches of this user are under way already; try again later")
            batch = Batch(id=f"batch_{uuid4().hex}", user=user, asker=asker, wanted=wanted, created_at=self._now())
            write = insert(table).values(**_row_of(batch))
            await transacted(self._engine, lambda connection: connection.execute(write), lambda: self._put(batch))
            return batch

    async def change(self, id_: str, state: State, *, before: State | None = None, **changes: Any) -> Batch:
        """It comes to a state that is not its end, if it is in the one ``before``; return it as it is then.

        Raises NoSuchBatch where it is over.
        """
        return await self._change(id_, state, (), before=before, **changes)

    async def end(self, id_: str, state: State, files: Sequence[BatchFile] = (), **changes: Any) -> Batch:
        """It is over, and its lines are forgotten: all of it, and its files, or nothing. Raises NoSuchBatch."""
        return await self._change(id_, state, files, **changes)

    async def find(self, id_: str) -> Batch | None:
        """Return a batch by its id; None where there is none."""
        if (found := self._under_way.get(id_)) is not None:
            return found
        query = select(table).where(table.c.id == id_)

        async def read(connection: AsyncConnection) -> Batch | None:
            row = (await connection.execute(query)).mappings().first()
            return _batch_of(row) if row is not None else None

        return await transacted(self._engine, read)

    async def page(self, asked: Asked, user: str | None) -> tuple[list[Batch], bool]:
        """Return a page of the batches of a user, or of all, and whether there are more."""
        query = select(table)
        if user is not None:
            query = query.where(table.c.user == user)
        rows, more = await transacted(self._engine, lambda connection: page_of(connection, query, table, asked))
        return [_batch_of(row) for row in rows], more

    async def forget_before(self, instant: datetime) -> None:
        """Forget those that were begun before an instant and are over."""
        old = delete(table).where(table.c.created_at < instant)
        old = old.where(table.c.state.not_in([one.value for one in UNDER_WAY]))
        await transacted(self._engine, lambda connection: connection.execute(old))

    async def _change(
        self, id_: str, state: State, files: Sequence[BatchFile], *, before: State | None = None, **changes: Any
    ) -> Batch:
        async with self._changes:
            found = self._under_way.get(id_)
            if found is None:
                raise NoSuchBatch(id_)
            if before is not None and found.state is not before:
                return found
            times = {**found.times, _FIELDS[state]: int(self._now().timestamp())}
            new = replace(found, state=state, times=times, **changes)
            row = _row_of(new)

            async def write(connection: AsyncConnection) -> None:
                await connection.execute(update(table).where(table.c.id == id_).values(**row))
                for file in files:
                    await connection.execute(insertion(file))
                if state.over:
                    await connection.execute(forget_lines(id_))

            await transacted(self._engine, write, lambda: self._put(new))
            return new

    def _put(self, batch: Batch) -> None:
        if batch.state.over:
            self._under_way.pop(batch.id, None)
        else:
            self._under_way[batch.id] = batch
        self.changed.set()


def _row_of(batch: Batch) -> dict[str, Any]:
    wanted = batch.wanted
    said = {"metadata": wanted.metadata, "error": batch.error, "times": dict(batch.times)}
    return {
        "id": batch.id,
        "user": batch.user,
        "asker": batch.asker,
        "state": batch.state.value,
        "endpoint": wanted.endpoint,
        "input_file": wanted.input_file,
        "output_file": batch.output_file,
        "error_file": batch.error_file,
        "run": wanted.run.value,
        "total": batch.total,
        "completed": batch.completed,
        "failed": batch.failed,
        "said": json.dumps(said),
        "created_at": batch.created_at,
    }


def _batch_of(row: RowMapping) -> Batch:
    said = json.loads(row["said"])
    return Batch(
        id=row["id"],
        user=row["user"],
        asker=row["asker"],
        wanted=Wanted(
            input_file=row["input_file"], endpoint=row["endpoint"], run=Run(row["run"]), metadata=said["metadata"]
        ),
        created_at=aware(row["created_at"]) or datetime.fromtimestamp(time.time(), UTC),
        state=State(row["state"]),
        output_file=row["output_file"],
        error_file=row["error_file"],
        total=row["total"],
        completed=row["completed"],
        failed=row["failed"],
        error=said["error"],
        times=said["times"],
    )
