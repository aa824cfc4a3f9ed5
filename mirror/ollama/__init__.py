"""An Ollama behind the mirror: which one, a client of its API, the form of its errors, the heads of its model files.

Touches the network towards that Ollama, and nothing else; what it answers in the shapes of faces is only values here.
"""

from mirror.ollama.answers import ListedModel, Progress, RunningModel
from mirror.ollama.backend import Backend
from mirror.ollama.behind import Behind
from mirror.ollama.client import Ollama
from mirror.ollama.errors import error_body
from mirror.ollama.gguf import BadModelFile, ModelFile, read_model_file

__all__ = [
    "Backend",
    "BadModelFile",
    "Behind",
    "ListedModel",
    "ModelFile",
    "Ollama",
    "Progress",
    "RunningModel",
    "error_body",
    "read_model_file",
]
