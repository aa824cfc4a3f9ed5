"""Passes: the right to read one model for a while, said by a namespace that nobody can guess.

An Ollama cannot be handed a key, but it asks for a model under the name it was told. So it is told one whose namespace
is a pass: ``/v2/handed-<mark>-<secret>/llama3.2/...`` is the model of that pass and nothing else, for as long as it
lives.
"""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mirror.values import Digest, Manifest, ModelName

_PREFIX = "handed-"


def is_handed(name: ModelName) -> bool:
    """Say whether a name is of a pass, of this mirror or another, and means a model on its way only."""
    return name.namespace.lower().startswith(_PREFIX)


@dataclass(frozen=True, slots=True)
class Pass:
    """The right to read ``manifest`` and the blobs ``digests``, which are those of the model ``name``."""

    namespace: str
    name: ModelName
    manifest: Manifest
    digests: frozenset[Digest]

    def name_at(self, host: str) -> ModelName:
        """Return the name by which the model is asked for at ``host``."""
        return replace(self.name, host=host, namespace=self.namespace)


class Passes:
    """The passes that live. For the event loop's thread.

    ``mark`` is the same in every life of this mirror and no other's, so that it knows the names again that it left
    with an Ollama when it was killed.
    """

    def __init__(self, mark: str) -> None:
        self._prefix = f"{_PREFIX}{mark}-"
        self._live: dict[str, Pass] = {}

    @contextmanager
    def issued(self, name: ModelName, manifest: Manifest, digests: Iterable[Digest]) -> Iterator[Pass]:
        """Have a pass live while the context lasts."""
        one = Pass(f"{self._prefix}{secrets.token_hex(16)}", name, manifest, frozenset(digests))
        self._live[one.namespace] = one
        try:
            yield one
        finally:
            del self._live[one.namespace]

    def of(self, namespace: str) -> Pass | None:
        """Return the live pass that a namespace is, whatever its letter case (docs/protocol.md §1)."""
        return self._live.get(namespace.lower()) if self._live else None

    def of_path(self, path: str) -> Pass | None:
        """Return the live pass that a path below /v2 shows."""
        return self.of(path.split("/", 3)[2]) if self._live and path.startswith("/v2/") else None

    def is_left_over(self, name: ModelName) -> bool:
        """Say whether a name is of a pass of this mirror that lives no more."""
        return name.namespace.lower().startswith(self._prefix) and self.of(name.namespace) is None
