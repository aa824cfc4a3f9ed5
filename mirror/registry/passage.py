"""A blob from upstream to one client, of which nothing is kept."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from mirror.errors import DigestMismatch, RateLimited, UpstreamError
from mirror.upstream import Upstream
from mirror.values import ByteRange, Digest, ModelName

_LONGEST_PAUSE_S = 30.0


class Passage:
    """Reads a range from upstream, resuming where a connection broke.

    A whole blob is hashed on its way and its end withheld until it is proven. A part of one cannot be proven by
    itself: the client that joins the parts checks them, as Ollama does.
    """

    def __init__(self, upstream: Upstream, name: ModelName, digest: Digest, span: ByteRange, size: int) -> None:
        self._upstream = upstream
        self._name = name
        self._digest = digest
        self._span = span
        self._size = size
        self._at = span.start
        self._failures = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes in order; close it when done. Raises UpstreamError, DigestMismatch."""
        whole = self._span == ByteRange(0, self._size)
        async with aclosing(self._resumed()) as chunks:
            if not whole:
                async for chunk in chunks:
                    yield chunk
                return
            sha256, held = hashlib.sha256(), b""
            async for chunk in chunks:
                sha256.update(chunk)
                if held:
                    yield held
                held = chunk
        got = Digest(sha256.hexdigest())
        if got != self._digest:
            raise DigestMismatch(self._digest, got)
        if held:
            yield held

    async def _resumed(self) -> AsyncGenerator[bytes, None]:
        while self._at < self._span.stop:
            try:
                address = await self._upstream.locate(self._name.repository, self._digest, self._size, once=True)
                async with self._upstream.stream(address, ByteRange(self._at, self._span.stop)) as chunks:
                    async for chunk in chunks:
                        self._failures = 0
                        self._at += len(chunk)
                        yield chunk
            except UpstreamError as error:
                await self._pause_after(error)

    async def _pause_after(self, error: UpstreamError) -> None:
        self._failures += 1
        if error.permanent or self._failures > self._upstream.settings.retry_attempts:
            raise error
        pause_s = self._upstream.settings.retry_delay * 2.0 ** (self._failures - 1)
        if isinstance(error, RateLimited) and error.retry_after_s is not None:
            pause_s = error.retry_after_s
        await asyncio.sleep(min(_LONGEST_PAUSE_S, pause_s))
