"""Where a job stands, in words for people."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from mirror.pulls import Job, Queue, State, Worker

_WEEK = timedelta(days=7)


class Standing:
    """Says of jobs when they will be done, by the clock of ``zone``."""

    def __init__(self, queue: Queue, worker: Worker, zone: ZoneInfo) -> None:
        self._queue = queue
        self._worker = worker
        self._zone = zone

    def of(self, job: Job) -> str:
        """Return a sentence on a job under way, such as ``queued: position 2, fetched from 22:00``."""
        if job.state is State.DOWNLOADING:
            return "being fetched"
        if job.state is State.DELIVERING:
            return f"delivering to Ollama{self._again(job)}"
        return f"queued: position {self._queue.position(job)}, {self._when(job)}{self._again(job)}"

    def _when(self, job: Job) -> str:
        now = self._worker.now()
        if self._queue.paused:
            return "fetched once somebody resumes the queue"
        if job.at_once or self._worker.schedule.now(now) is not None:
            return "fetched as soon as its turn comes"
        following = self._worker.schedule.next(now)
        return f"fetched from {self._clock(following.start, now)}" if following else "fetched when somebody says so"

    def _again(self, job: Job) -> str:
        """Say why it is tried again, and when."""
        if job.error is None or job.not_before is None:
            return ""
        return f"; tried again at {self._clock(job.not_before, self._worker.now())}, as {job.error}"

    def _clock(self, instant: datetime, now: datetime) -> str:
        there, here = instant.astimezone(self._zone), now.astimezone(self._zone)
        if instant - now < timedelta(days=1):
            return f"{there:%H:%M}" if there.date() == here.date() else f"{there:%H:%M} tomorrow"
        return f"{there:%A %H:%M}" if instant - now < _WEEK else f"{there:%Y-%m-%d %H:%M}"
