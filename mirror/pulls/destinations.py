"""The Ollamas that models are delivered to: those of ``pulls.deliver_to``, else the one behind the mirror."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mirror.config import Delivery, Destination, ProxySettings, PullSettings
from mirror.ollama import Backend, Behind, Ollama
from mirror.values import ModelName, NamePattern


@dataclass(frozen=True, slots=True)
class Target:
    """One Ollama. ``folder`` is its OLLAMA_MODELS as this machine sees it, where that is known."""

    backend: Backend
    folder: Path | None = None
    patterns: tuple[NamePattern, ...] = ()

    @property
    def ollama(self) -> Ollama:
        """A client of it."""
        return Ollama(self.backend)

    def wants(self, name: ModelName) -> bool:
        """Say whether a model is for it."""
        return not self.patterns or any(pattern.matches(name) for pattern in self.patterns)


class Destinations:
    """Knows who wants a model. For the event loop's thread; close it when done."""

    def __init__(self, pulls: PullSettings, proxy: ProxySettings, behind: Behind, host: str) -> None:
        """``host`` is that of names which say none."""
        self._none = pulls.delivery is Delivery.NONE
        self._behind = behind
        self._listed = [_target(one, proxy.connect_timeout, host) for one in pulls.deliver_to]

    async def close(self) -> None:
        """End every connection."""
        for one in self._listed:
            await one.backend.close()

    async def of(self, name: ModelName) -> list[Target]:
        """Return the Ollamas that want a model; whether they answer shows when they are asked."""
        return [] if self._none else [one for one in await self._every() if one.wants(name)]

    async def _every(self) -> Iterable[Target]:
        if self._listed:
            return self._listed
        backend = await self._behind.backend()
        return [Target(backend)] if backend is not None else []


def _target(said: Destination, connect_timeout_s: float, host: str) -> Target:
    patterns = tuple(NamePattern.parse(one, host=host) for one in said.models)
    return Target(Backend(said.url, connect_timeout_s), said.folder, patterns)
