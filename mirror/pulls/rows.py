"""Jobs as rows of the database, and back."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mirror.db.instants import aware
from mirror.db.tables import pull_jobs, pull_requesters
from mirror.pulls.job import Job, State
from mirror.values import DEFAULT_HOST, ModelName


async def save(connection: AsyncConnection, job: Job) -> None:
    """Write what has become of a job that is there."""
    row = row_of(job)
    await connection.execute(update(pull_jobs).where(pull_jobs.c.id == row.pop("id")).values(**row))


async def read_jobs(connection: AsyncConnection, query: Any) -> list[Job]:
    """Return the jobs that a query on their table finds, with who asked for them in the order of asking."""
    rows: Sequence[RowMapping] = (await connection.execute(query)).mappings().all()
    asked: dict[str, list[str]] = {row["id"]: [] for row in rows}
    wanted = select(pull_requesters).where(pull_requesters.c.job.in_(list(asked)))
    for one in await connection.execute(wanted.order_by(pull_requesters.c.asked_at)):
        asked[one.job].append(one.who)
    return [_job(row, asked[row["id"]]) for row in rows]


def row_of(job: Job) -> dict[str, Any]:
    """Return a job as a row of its table."""
    return {
        "id": job.id,
        "name": str(job.name),
        "state": job.state.value,
        "priority": job.priority,
        "place": job.place,
        "size": job.size,
        "tries": job.tries,
        "not_before": job.not_before,
        "at_once": int(job.at_once),
        "error": job.error,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def _job(row: RowMapping, requesters: Iterable[str]) -> Job:
    return Job(
        id=row["id"],
        name=ModelName.parse(row["name"], host=DEFAULT_HOST),
        state=State(row["state"]),
        priority=row["priority"],
        place=row["place"],
        size=row["size"],
        tries=row["tries"],
        not_before=aware(row["not_before"]),
        at_once=bool(row["at_once"]),
        error=row["error"],
        created_at=aware(row["created_at"]) or datetime.now(UTC),
        started_at=aware(row["started_at"]),
        finished_at=aware(row["finished_at"]),
        requesters=tuple(requesters),
    )
