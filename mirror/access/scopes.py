"""What a key may be good for."""

from collections.abc import Collection
from enum import StrEnum


class Scope(StrEnum):
    """``pull`` reads models, ``push`` brings them in, ``api`` talks to an Ollama behind; ``admin`` is everything."""

    PULL = "pull"
    PUSH = "push"
    API = "api"
    ADMIN = "admin"

    def within(self, scopes: Collection["Scope"]) -> bool:
        """Say whether ``scopes`` hold this one."""
        return self in scopes or Scope.ADMIN in scopes
