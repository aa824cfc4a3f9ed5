"""The ``/api`` and ``/v1`` faces: what Ollama's clients and OpenAI's ask, of the Ollama behind us or of the store.

Touches HTTP alone; the Ollama is asked through ``ollama``, models through ``store`` and ``fill``.
"""

from mirror.proxy.described import Descriptions
from mirror.proxy.face import ApiFace
from mirror.proxy.generation import Generation
from mirror.proxy.models import Models
from mirror.proxy.own import OwnAnswers
from mirror.proxy.pulls import Pulls
from mirror.proxy.queue import QueueRoutes
from mirror.proxy.relay import Relay
from mirror.proxy.standing import Standing

__all__ = [
    "ApiFace",
    "Descriptions",
    "Generation",
    "Models",
    "OwnAnswers",
    "Pulls",
    "QueueRoutes",
    "Relay",
    "Standing",
]
