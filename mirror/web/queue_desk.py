"""What is done to the queue of pulls; the same for the admin API and for commands."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mirror.errors import NoSuchJob
from mirror.fill import Tags
from mirror.pulls import Job, Pace, Queue, Wish, Wishes, Worker
from mirror.values import Invalid, ModelName
from mirror.web.views import job_view, queue_view

ACTIONS = ("cancel", "move", "now", "pause", "resume", "retry", "run")

View = dict[str, Any]


class BadPosition(Invalid):
    """A place in the queue that is none."""

    kind = "position"


@dataclass(frozen=True, slots=True)
class QueueDesk:
    """Takes wishes and orders for the queue, and answers with views. Raises QueueError, NotAllowed, Invalid."""

    queue: Queue
    worker: Worker
    pace: Pace
    wishes: Wishes
    tags: Tags
    host: str

    async def show(self) -> View:
        """Show what is under way, and when windows open."""
        return await queue_view(self.queue, self.worker, self.pace)

    async def history(self, most: int) -> View:
        """Show jobs that are over, the latest first."""
        return {"jobs": [self._view(job) for job in await self.queue.history(most)]}

    async def add(
        self, text: str, user: str, who: str, *, priority: int = 0, at_once: bool = False, limited: bool = False
    ) -> View:
        """Want a model; see Wishes.want."""
        wish = Wish(self.named(text), user, who, priority=priority, at_once=at_once, limited=limited)
        asked = await self.wishes.want(wish)
        return {"job": self._view(asked.job), "new": asked.is_new}

    async def act(self, action: str, reference: str, position: int | None) -> View:
        """Do one of ACTIONS; ``reference`` is the id or the name of a job, for those that are about one."""
        match action:
            case "pause" | "resume":
                await self.queue.pause(paused=action == "pause")
            case "run":
                for job in self.queue.jobs:
                    with suppress(NoSuchJob):  # it has come to an end in this moment
                        await self.queue.hurry(job.id)
            case "cancel":
                return {"job": self._view(await self.queue.cancel(self._reference(reference)))}
            case "now":
                return {"job": self._view(await self.queue.hurry(self._reference(reference)))}
            case "retry":
                return {"job": self._view(await self.queue.retry(self._reference(reference)))}
            case _:
                if position is None or position < 1:
                    raise BadPosition(str(position), "a place to move to, 1 being the next")
                return {"job": self._view(await self.queue.move(self._reference(reference), position))}
        return await self.show()

    def named(self, text: str) -> ModelName:
        """Return the model that a name means, as it is filed. Raises InvalidModelName."""
        return self.tags.filed(ModelName.parse(text, host=self.host))

    def _reference(self, said: str) -> str:
        """Return the id of the job under way that is meant by a name as people write it, else what was said."""
        if any(job.id == said for job in self.queue.jobs):
            return said
        name = self.named(said)
        job = self.queue.of(name)
        return job.id if job is not None else name.short

    def _view(self, job: Job) -> View:
        return job_view(job, self.queue, self.worker)
