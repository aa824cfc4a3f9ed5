"""What shall be fetched and when: the queue, the windows, and the worker that does it. Touches the database."""

from mirror.pulls.job import Job, State
from mirror.pulls.queue import Asked, Queue

__all__ = ["Asked", "Job", "Queue", "State"]
