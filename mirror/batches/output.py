"""What a batch writes: a file of answers, and one of errors, in OpenAI's lines."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from mirror.batches.batch import OUTPUT, Batch, BatchFile
from mirror.batches.files import Draft, Files
from mirror.prompts import Lines, Over, refusal
from mirror.prompts import State as LineState

_PIECE = 1 << 20
EXPIRED = refusal("batch_expired", "This request could not be executed before the completion window expired.")


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a batch, where they have any line, and how many each has."""

    output: BatchFile | None
    errors: BatchFile | None
    completed: int
    failed: int

    @property
    def files(self) -> list[BatchFile]:
        """Those that there are."""
        return [one for one in (self.output, self.errors) if one is not None]


class _Lines:
    """A draft that is written in pieces."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.count = 0
        self._held = bytearray()

    async def add(self, line: bytes) -> None:
        self.count += 1
        self._held += line
        if len(self._held) > _PIECE:
            await self.flush()

    async def flush(self) -> None:
        held, self._held = bytes(self._held), bytearray()
        if held:
            await self.draft.write(held)


async def written(files: Files, lines: Lines, batch: Batch, *, expired: bool) -> Written:
    """Write what came of the lines of a batch, in their order; what was taken back is an error if it has expired.

    The files have their names then, and no rows yet. Raises OSError, TooLarge, PromptsUnusable.
    """
    async with AsyncExitStack() as stack:
        out, errors = [_Lines(await stack.enter_async_context(files.draft(bounded=False))) for _ in range(2)]
        async for one, line in _told(lines, batch.id, expired=expired):
            await (out if one.state is LineState.COMPLETED else errors).add(line)
        found: list[BatchFile | None] = []
        for kind, name in ((out, "output"), (errors, "error")):
            await kind.flush()
            if kind.count:
                await kind.draft.place()
            file = files.described(kind.draft, batch.user, f"{batch.id}_{name}.jsonl", OUTPUT)
            found.append(file if kind.count else None)
        return Written(found[0], found[1], out.count, errors.count)


async def _told(lines: Lines, batch: str, *, expired: bool) -> AsyncIterator[tuple[Over, bytes]]:
    async for one in lines.over(batch):
        result = one.result if one.state is not LineState.CANCELLED else json.dumps(EXPIRED) if expired else None
        if result is None:
            continue
        said = {"id": f"batch_req_{one.id.replace('-', '')}", "custom_id": one.custom_id, "response": None}
        yield one, json.dumps({**said, "error": None, **json.loads(json.loads(result))}).encode() + b"\n"
