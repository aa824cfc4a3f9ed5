"""The ``/api`` face: what Ollama's own clients ask. For now what the store alone can answer."""

from mirror.proxy.face import ApiFace

__all__ = ["ApiFace"]
