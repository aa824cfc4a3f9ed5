"""Prompt jobs as rows of the database, and back."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping

from mirror.config import Run
from mirror.db.instants import aware
from mirror.db.tables import prompt_jobs as table
from mirror.prompts.prompt import Prompt, State

LIGHT = tuple(one for one in table.c if one.name not in ("said", "result", "idempotency_key"))
"""The columns without texts, which may be large."""


def row_of(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt job as a row, without its texts."""
    return {
        "id": prompt.id,
        "user": prompt.user,
        "model": prompt.model,
        "cost": prompt.cost,
        "size": prompt.size,
        "state": prompt.state.value,
        "priority": prompt.priority,
        "deadline": prompt.deadline,
        "tries": prompt.tries,
        "not_before": prompt.not_before,
        "run": prompt.run.value,
        "webhook": prompt.webhook,
        "path": prompt.path,
        "batch": prompt.batch,
        "asker": prompt.asker,
        "error": _storable(prompt.error),
        "created_at": prompt.created_at,
        "updated_at": prompt.updated_at,
    }


def prompt_of(row: RowMapping) -> Prompt:
    """Return a row as a prompt job."""
    now = datetime.now(UTC)
    return Prompt(
        id=row["id"],
        user=row["user"],
        model=row["model"],
        cost=row["cost"],
        size=row["size"],
        state=State(row["state"]),
        priority=row["priority"],
        deadline=aware(row["deadline"]),
        tries=row["tries"],
        not_before=aware(row["not_before"]),
        run=Run(row["run"]),
        webhook=row["webhook"],
        path=row["path"],
        batch=row["batch"],
        asker=row["asker"],
        error=row["error"],
        created_at=aware(row["created_at"]) or now,
        updated_at=aware(row["updated_at"]) or now,
    )


def _storable(text: str | None) -> str | None:
    """Return a text as a database takes it: half a surrogate pair and a zero byte are no text there."""
    return text.encode("utf-8", "replace").decode().replace("\0", "") if text is not None else None
