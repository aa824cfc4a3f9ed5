"""What several Ollamas say together: their models, and what they have loaded."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from mirror.dispatch import Member, Pool, model_key
from mirror.errors import BackendError
from mirror.ollama import Ollama

Row = dict[str, Any]

_WITHIN_S = 5.0


def is_merged(pool: Pool) -> bool:
    """Say whether there is more than one Ollama to ask."""
    return not pool.lone and any(one.online for one in pool)


def having(pool: Pool, name: str) -> list[Member]:
    """Return the members that have a model, by its name; none where there is only one Ollama to ask."""
    return pool.having(model_key(name)) if is_merged(pool) else []


async def merged_models(pool: Pool) -> list[Row]:
    """Return the rows of /api/tags of all members, each model once, the newest first."""
    found: dict[str, Row] = {}
    for _, rows in await _each(pool, lambda ollama: ollama.listed()):
        for row in rows:
            found.setdefault(model_key(_name(row)), row)
    return sorted(found.values(), key=lambda row: str(row.get("modified_at", "")), reverse=True)


async def merged_loaded(pool: Pool) -> list[Row]:
    """Return the rows of /api/ps of all members, each with the member's id as ``node``."""
    each = await _each(pool, lambda ollama: ollama.loaded())
    return [{**row, "node": member.id} for member, rows in each for row in rows]


async def _each(pool: Pool, ask: Callable[[Ollama], Awaitable[Row]]) -> list[tuple[Member, list[Row]]]:
    """Ask all members that are online at once; one that fails, or takes too long, has nothing to say."""
    found: dict[str, list[Row]] = {}

    async def one(member: Member) -> None:
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(_WITHIN_S):
                said = (await ask(Ollama(member.backend))).get("models")
                found[member.id] = [row for row in said if isinstance(row, dict)] if isinstance(said, list) else []

    members = [member for member in pool if member.online and member.relays]
    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(one(member))
    return [(member, found[member.id]) for member in members if member.id in found]


def _name(row: Row) -> str:
    return str(row.get("model") or row.get("name") or "")
