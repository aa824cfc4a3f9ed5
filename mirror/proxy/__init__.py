"""The ``/api`` and ``/v1`` faces: what Ollama's clients and OpenAI's ask, of the Ollama behind us or of the store.

Touches HTTP alone; the Ollama is asked through ``ollama``, models through ``store`` and ``fill``.
"""

from mirror.proxy.described import Descriptions
from mirror.proxy.face import ApiFace
from mirror.proxy.own import OwnAnswers
from mirror.proxy.pulls import OwnPulls
from mirror.proxy.queue import QueueRoutes
from mirror.proxy.relay import Relay

__all__ = ["ApiFace", "Descriptions", "OwnAnswers", "OwnPulls", "QueueRoutes", "Relay"]
