"""What shall be fetched and when: the queue, the windows, and the worker that does it. Touches the database."""

from mirror.pulls.clock import Clock, WallClock, local_zone
from mirror.pulls.guards import Guards
from mirror.pulls.job import Job, State
from mirror.pulls.queue import Asked, Queue
from mirror.pulls.worker import Worker

__all__ = ["Asked", "Clock", "Guards", "Job", "Queue", "State", "WallClock", "Worker", "local_zone"]
