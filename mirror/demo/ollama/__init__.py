"""A client that pulls as Ollama 0.33 does, and is as picky: what it accepts, Ollama accepts.

What an interrupted pull left behind is fetched anew, except by ``pull_tensor``.
"""

from mirror.demo.ollama.classic import pull
from mirror.demo.ollama.tensor import pull_tensor
from mirror.demo.ollama.transfer import MissingLocation, PullFailed, PullReport

__all__ = ["MissingLocation", "PullFailed", "PullReport", "pull", "pull_tensor"]
