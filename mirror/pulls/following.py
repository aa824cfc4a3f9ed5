"""A job followed to its end, for whoever waits for it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from mirror.errors import PullFailed, QueueError
from mirror.pulls.job import Job, State
from mirror.pulls.queue import Asked, Queue

_EVERY_S = 0.1
_AT_FULL_PACE = 20


async def followed(queue: Queue, asked: Asked, look: Callable[[Job], None], *, patient: bool, stays: bool) -> Job:
    """Call ``look`` with a job several times a second until it is over; return it, completed.

    Who is not ``patient`` does not wait for another try, and takes the job back that was made for that. So does who
    leaves, which is to be cancelled, unless the job ``stays``; what others want stays in any case.

    Raises PullFailed with the job's own error.
    """
    queue.followers[asked.job.id] += 1
    try:
        while (now := queue.get(asked.job)) is not None:
            look(now)
            if not patient and now.error is not None and now.not_before is not None:
                break
            await asyncio.sleep(pause_s(queue.followers.total()))
    except asyncio.CancelledError:
        if not stays and not patient and queue.followers[asked.job.id] == 1:
            await _give_up(queue, asked)
        raise
    finally:
        queue.followers[asked.job.id] -= 1
        queue.followers += Counter()  # without those that nobody follows any more
    if now is not None:
        await _give_up(queue, asked)
        raise PullFailed(now.error or "")
    ended = await queue.ended_as(asked.job)
    if ended.state is not State.COMPLETED:
        raise PullFailed(ended.error or f"{ended.name.short} was {ended.state}")
    return ended


def pause_s(followers: int) -> float:
    """Return how long each of so many waits between two looks: all of them together look no more than twenty would."""
    return _EVERY_S * max(1.0, followers / _AT_FULL_PACE)


async def _give_up(queue: Queue, asked: Asked) -> None:
    job = queue.get(asked.job)
    if asked.is_new and job is not None and len(job.requesters) == 1:
        with suppress(QueueError):
            await queue.cancel(job.id)
