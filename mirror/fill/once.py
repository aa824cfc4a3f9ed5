"""One question for all who ask the same at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from mirror.errors import MirrorError

T = TypeVar("T")


class Once(Generic[T]):
    """Shares answers and foreseen failures among those who ask meanwhile; keeps nothing. Of the loop's thread.

    Whoever comes first asks. If that one leaves before the answer, the next in line asks in its place.
    """

    def __init__(self) -> None:
        self._asking: dict[Hashable, _Question[T]] = {}

    async def ask(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what ``ask`` returns, to one caller or another. Raises what it raises."""
        while (asked := self._asking.get(key)) is not None:
            await asked.over.wait()
            if asked.error is not None:
                raise asked.error
            for answer in asked.answers:
                return answer
        question: _Question[T] = _Question()
        self._asking[key] = question
        try:
            answer = await ask()
            question.answers.append(answer)
        except MirrorError as error:
            question.error = error
            raise
        finally:
            del self._asking[key]
            question.over.set()
        return answer


class _Question(Generic[T]):
    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.answers: list[T] = []
        self.error: MirrorError | None = None
