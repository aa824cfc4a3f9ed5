"""Batches: files of requests, run line by line as prompt jobs, in the form of OpenAI's API.

Touches the database, through its tables; HTTP; and a folder of the state.
"""

from mirror.batches.batches import Batches
from mirror.batches.face import BatchFace
from mirror.batches.files import Files
from mirror.batches.worker import Worker

__all__ = ["BatchFace", "Batches", "Files", "Worker"]
