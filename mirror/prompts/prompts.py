"""All prompt jobs: those under way in memory without their texts, every one in the database, which is written first."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import ColumnElement, delete, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db.tables import prompt_jobs as table
from mirror.prompts.database import transacted
from mirror.prompts.prompt import UNDER_WAY, Asked, Line, NoSuchPrompt, Prompt, State, TooManyPrompts
from mirror.prompts.rows import LIGHT, prompt_of, row_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list, the newest first; ``number`` is the page that it is, from 1 to ``pages``."""

    prompts: tuple[Prompt, ...]
    number: int
    size: int
    total: int

    @property
    def pages(self) -> int:
        """How many there are; an empty list has one."""
        return max(1, -(-self.total // self.size))


class Prompts:
    """Prompt jobs, which survive the process. For the event loop's thread; changes come one after another.

    Everything that reads or writes raises PromptsUnusable where the database cannot be used; nothing has changed then.
    ``changed`` is set after every change of one that is under way, and ``watchers`` are called with each that ends.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        most: int,
        most_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``most`` is how many may be under way at once, and ``most_bytes`` what they may have all in all."""
        self._engine = engine
        self._most = most
        self._most_bytes = most_bytes
        self.now = now
        self._under_way: dict[str, Prompt] = {}
        self._changes = asyncio.Lock()
        self.changed = asyncio.Event()
        self.watchers: list[Callable[[Prompt], None]] = []

    async def load(self) -> None:
        """Read what is under way; what a process that died had begun is queued again."""

        async def read(connection: AsyncConnection) -> list[Prompt]:
            begun = table.c.state == State.PROCESSING.value
            await connection.execute(update(table).where(begun).values(state=State.QUEUED.value))
            under_way = table.c.state.in_([one.value for one in UNDER_WAY])
            rows = (await connection.execute(select(*LIGHT).where(under_way))).mappings().all()
            return [prompt_of(row) for row in rows]

        self._under_way = {one.id: one for one in await self._done(read)}

    def counts(self) -> dict[str, int]:
        """Return how many are queued and how many processing."""
        states = Counter(one.state for one in self._under_way.values())
        return {state.value: states[state] for state in (State.QUEUED, State.PROCESSING)}

    @property
    def waiting(self) -> list[Prompt]:
        """Those that are queued, in their order."""
        queued = (one for one in self._under_way.values() if one.state is State.QUEUED)
        return sorted(queued, key=lambda one: one.order)

    async def ask(self, asked: Asked, user: str, key: str | None = None) -> Prompt:
        """Queue a prompt job, or return the one that the user asked for by the same idempotency ``key``.

        Raises TooManyPrompts.
        """
        body = await asyncio.to_thread(json.dumps, asked.body)
        async with self._changes:
            if key is not None and (found := await self._by_key(user, key)) is not None:
                return found
            if len(self._under_way) >= self._most:
                raise TooManyPrompts(f"{self._most} prompts are queued already (prompts.max_queued); try again later")
            if sum(one.size for one in self._under_way.values()) + len(body) > self._most_bytes:
                raise TooManyPrompts("the prompts that are queued have prompts.max_size already; try again later")
            now = self.now()
            prompt = Prompt(
                id=str(uuid4()),
                user=user,
                model=asked.model,
                cost=asked.cost,
                size=len(body),
                created_at=now,
                updated_at=now,
                priority=asked.priority,
                deadline=asked.deadline,
                run=asked.run,
                webhook=asked.webhook,
                path=asked.path,
                batch=asked.line.batch if asked.line is not None else None,
                asker=asked.asker,
            )
            row = {**row_of(prompt), **_place(asked.line), "said": body, "idempotency_key": key}
            write = insert(table).values(**row)
            await self._done(lambda connection: connection.execute(write), lambda: self._put(prompt))
            return prompt

    async def refuse(self, lines: Sequence[tuple[Line, str]], user: str) -> None:
        """Note lines of a batch that are not run, with what is to be said of each."""
        if not lines:
            return
        now, rows = self.now(), []
        for line, said in lines:
            prompt = Prompt(
                id=str(uuid4()),
                user=user,
                model="",
                cost=0.0,
                size=0,
                created_at=now,
                updated_at=now,
                state=State.FAILED,
                batch=line.batch,
            )
            rows.append({**row_of(prompt), **_place(line), "said": "", "result": json.dumps(said)})
        await self._done(lambda connection: connection.execute(insert(table), rows))

    def of_batch(self, batch: str) -> list[Prompt]:
        """Return the lines of a batch that are under way."""
        return [one for one in self._under_way.values() if one.batch == batch]

    async def body(self, prompt: Prompt) -> dict[str, Any]:
        """Return what its Ollama is to be sent, less the model. Raises NoSuchPrompt."""
        query = select(table.c.said).where(table.c.id == prompt.id)
        found = await self._done(lambda connection: connection.scalar(query))
        if not found:
            raise NoSuchPrompt(prompt.id)
        body: dict[str, Any] = await asyncio.to_thread(json.loads, found)
        return body

    async def begun(self, prompt: Prompt) -> Prompt:
        """It runs now, one time more. Raises NoSuchPrompt where it is over."""
        return await self._change(prompt.id, state=State.PROCESSING, tries=prompt.tries + 1)

    async def given_back(self, prompt: Prompt, error: str | None, again_at: datetime) -> Prompt:
        """It waits again, until an instant, with as many tries as ``prompt`` says. Raises NoSuchPrompt."""
        return await self._change(prompt.id, state=State.QUEUED, tries=prompt.tries, error=error, not_before=again_at)

    def lost(self, id_: str) -> None:
        """Its end was not written down: it waits again, as it would in the next life. Nothing for one that is over."""
        if (found := self._under_way.get(id_)) is not None:
            self._put(replace(found, state=State.QUEUED))

    async def ended(
        self, prompt: Prompt, state: State, *, error: str | None = None, result: str | None = None
    ) -> Prompt:
        """It is over. Raises NoSuchPrompt where it was over before, which changes nothing."""
        said = await asyncio.to_thread(json.dumps, result) if result is not None else None
        return await self._change(prompt.id, said, state=state, error=error, not_before=None)

    async def find(self, id_: str) -> Prompt | None:
        """Return a prompt job by its id; None where there is none."""
        if (found := self._under_way.get(id_)) is not None:
            return found
        query = select(*LIGHT).where(table.c.id == id_)

        async def read(connection: AsyncConnection) -> Prompt | None:
            row = (await connection.execute(query)).mappings().first()
            return prompt_of(row) if row is not None else None

        return await self._done(read)

    async def result(self, prompt: Prompt) -> str:
        """Return what was answered to one that is completed; empty for others."""
        query = select(table.c.result).where(table.c.id == prompt.id)
        found = await self._done(lambda connection: connection.scalar(query))
        return str(await asyncio.to_thread(json.loads, found)) if found is not None else ""

    async def page(self, number: int, size: int, user: str | None = None) -> Page:
        """Return a page of the list of a user, or of all; a number that is out of range is the nearest one."""
        mine: ColumnElement[bool] = table.c.user == user if user is not None else true()
        mine &= table.c.batch.is_(None)

        async def read(connection: AsyncConnection) -> Page:
            total = int(await connection.scalar(select(func.count()).select_from(table).where(mine)) or 0)
            at = min(max(number, 1), max(1, -(-total // size)))
            newest = select(*LIGHT).where(mine).order_by(table.c.created_at.desc(), table.c.id.desc())
            rows = (await connection.execute(newest.limit(size).offset((at - 1) * size))).mappings().all()
            return Page(tuple(map(prompt_of, rows)), at, size, total)

        return await self._done(read)

    async def forget(self, prompt: Prompt) -> None:
        """Forget one that is over."""
        over = table.c.state.not_in([one.value for one in UNDER_WAY])
        await self._done(
            lambda connection: connection.execute(delete(table).where(table.c.id == prompt.id).where(over))
        )

    async def forget_before(self, instant: datetime) -> int:
        """Forget those that were over before an instant, and of which nobody is still to be told; return how many."""
        over = table.c.state.not_in([one.value for one in UNDER_WAY]) & (table.c.updated_at < instant)
        over &= table.c.tell_at.is_(None) & table.c.batch.is_(None)

        async def write(connection: AsyncConnection) -> int:
            return (await connection.execute(delete(table).where(over))).rowcount

        return await self._done(write)

    async def _by_key(self, user: str, key: str) -> Prompt | None:
        same = (table.c.user == user) & (table.c.idempotency_key == key)

        async def read(connection: AsyncConnection) -> Prompt | None:
            row = (await connection.execute(select(*LIGHT).where(same))).mappings().first()
            return prompt_of(row) if row is not None else None

        return await self._done(read)

    async def _change(self, id_: str, result: str | None = None, **changes: Any) -> Prompt:
        async with self._changes:
            found = self._under_way.get(id_)
            if found is None:
                raise NoSuchPrompt(id_)
            new = replace(found, updated_at=self.now(), **changes)
            row = {**row_of(new), **(_end_of(new, result) if new.state.over else {})}
            del row["id"]
            write = update(table).where(table.c.id == id_).values(**row)
            await self._done(lambda connection: connection.execute(write), lambda: self._put(new))
            return new

    def _put(self, prompt: Prompt) -> None:
        if prompt.state.over:
            self._under_way.pop(prompt.id, None)
            for watcher in self.watchers:
                watcher(prompt)
        else:
            self._under_way[prompt.id] = prompt
        self.changed.set()

    async def _done(
        self, work: Callable[[AsyncConnection], Awaitable[T]], committed: Callable[[], None] = lambda: None
    ) -> T:
        return await transacted(self._engine, work, committed)


def _place(line: Line | None) -> dict[str, Any]:
    """Return where in a batch a row is; its client's name for it as JSON, so that any text can be written."""
    if line is None:
        return {}
    return {"line": line.number, "custom_id": json.dumps(line.custom_id)}


def _end_of(prompt: Prompt, result: str | None) -> dict[str, Any]:
    """Return what the row of one that is over has besides; what was asked is needed no more."""
    return {"result": result, "said": "", "tell_at": prompt.updated_at if prompt.webhook is not None else None}
