"""Which Ollama stands behind the mirror, if any does."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress

from mirror.config import ProxySettings
from mirror.errors import BackendError
from mirror.ollama.backend import Backend, new_pseudonym, was_here
from mirror.ollama.client import Ollama

AUTO_URL = "http://127.0.0.1:11435"
"""Where an Ollama is looked for that made room for the mirror on its own port."""

_AGAIN_S = 5.0
_PROBE_S = 1.0


class Behind:
    """The backend that ``proxy.backend`` says: one, none, or where it says ``auto`` the one that answers, if it does.

    Of ``proxy.backends`` it is the first.

    For the event loop's thread; close it when done. ``auto_url`` is where auto looks, at most every few seconds: an
    Ollama that is started later is found, and one that has ended is forgotten.
    """

    def __init__(
        self,
        settings: ProxySettings,
        *,
        auto_url: str = AUTO_URL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        said = settings.backends[0].url if settings.backends else settings.backend
        self._auto = said == "auto"
        url = auto_url if self._auto else said
        self.pseudonym = new_pseudonym()
        self._backend = None if url == "none" else Backend(url, settings.connect_timeout, pseudonym=self.pseudonym)
        self._clock = clock
        self._looked_at = float("-inf")
        self._answers = False
        self._looking = asyncio.Lock()

    @property
    def any(self) -> Backend | None:
        """The backend that it is if it is there; None where the settings want none."""
        return self._backend

    async def close(self) -> None:
        """End every connection."""
        if self._backend is not None:
            await self._backend.close()

    async def backend(self) -> Backend | None:
        """Return the backend that is to be asked now; None where there is none. Whether it answers shows then."""
        if self._auto:
            async with self._looking:  # who asks while somebody looks waits for what is found
                if self._clock() - self._looked_at > _AGAIN_S:
                    self._answers = await self._is_there()
                    self._looked_at = self._clock()
        return self._backend if self._answers or not self._auto else None

    def leads_back(self, via: str) -> bool:
        """Say whether a request with this Via has been here before."""
        return was_here(self.pseudonym, via)

    async def _is_there(self) -> bool:
        if self._backend is None:
            return False
        with suppress(BackendError, TimeoutError, json.JSONDecodeError):
            async with asyncio.timeout(_PROBE_S):
                return bool(await Ollama(self._backend).version())
        return False
