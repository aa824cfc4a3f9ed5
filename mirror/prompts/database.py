"""Transactions on the tables of prompt jobs."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.db import in_transaction
from mirror.prompts.prompt import PromptsUnusable

T = TypeVar("T")


async def transacted(
    engine: AsyncEngine,
    work: Callable[[AsyncConnection], Awaitable[T]],
    committed: Callable[[], None] = lambda: None,
) -> T:
    """Do work in one transaction, call ``committed``, and return what the work returns.

    Raises PromptsUnusable; nothing has changed then.
    """
    try:
        return await in_transaction(engine, work, committed)
    except SQLAlchemyError as error:
        said = getattr(error, "orig", None) or type(error).__name__
        raise PromptsUnusable(f"the prompts cannot be read or written: {said}") from error
