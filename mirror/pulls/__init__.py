"""What shall be fetched, when and how fast: the queue, the windows, the worker that does it, and who is told.

Touches the database, and the network: the Ollamas that models are delivered to, and a webhook.
"""

from mirror.pulls.clock import Clock, WallClock, local_zone, until_or
from mirror.pulls.delivery import Deliveries
from mirror.pulls.destinations import Destinations
from mirror.pulls.following import followed
from mirror.pulls.guards import DiskOf, Guards
from mirror.pulls.job import Job, State
from mirror.pulls.pace import Pace
from mirror.pulls.posting import Posting
from mirror.pulls.queue import Asked, Queue
from mirror.pulls.webhook import Webhook
from mirror.pulls.wishes import Wish, Wishes
from mirror.pulls.worker import Worker

__all__ = [
    "Asked",
    "Clock",
    "Deliveries",
    "Destinations",
    "DiskOf",
    "Guards",
    "Job",
    "Pace",
    "Posting",
    "Queue",
    "State",
    "WallClock",
    "Webhook",
    "Wish",
    "Wishes",
    "Worker",
    "followed",
    "local_zone",
    "until_or",
]
