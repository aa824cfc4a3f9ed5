"""The path of tensor models: several blobs at once, each found by one GET and had by another (x/transfer)."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from mirror.demo.model import check_blob, unfinished
from mirror.demo.ollama.transfer import (
    ATTEMPTS,
    MAX_HOPS,
    PullFailed,
    PullReport,
    Transfer,
    TryAgain,
    all_of,
    running,
    target_of,
)
from mirror.errors import DigestMismatch
from mirror.values import Descriptor, ModelName

_TENSOR = {"User-Agent": "ollama-transfer/1.0"}


async def pull_tensor(
    url: str,
    name: ModelName | str,
    into: Path | None = None,
    *,
    session: aiohttp.ClientSession | None = None,
    streams: int = 4,
    resume_min: int = 64 << 20,
    pause_s: float = 0.01,
    progress: Callable[[int], None] | None = None,
) -> PullReport:
    """Pull as Ollama pulls tensor models: ``streams`` blobs at once, each found by one GET and had by another.

    Only a blob of ``resume_min`` bytes or more goes on where it broke off; the n-th pause is ``pause_s`` times
    n squared. Raises as ``pull`` does.
    """
    async with running(url, name, into, session, progress) as transfer:
        manifest = await transfer.manifest()
        tensors = _Tensors(transfer, asyncio.Semaphore(streams), resume_min, pause_s)
        await all_of(tensors.fetch(blob) for blob in manifest.blobs)
        return transfer.report(manifest)


@dataclass(frozen=True, slots=True)
class _Tensors:
    """The blobs of a tensor model; their sizes are taken from the manifest."""

    transfer: Transfer
    slots: asyncio.Semaphore
    resume_min: int
    pause_s: float

    async def fetch(self, blob: Descriptor) -> None:
        final = self.transfer.path(blob.digest)
        if final.exists() and final.stat().st_size == blob.size:
            return
        attempt = 1
        async with self.slots:
            while True:
                try:
                    await self._attempt(blob, final)
                except (aiohttp.ClientError, TimeoutError, TryAgain, DigestMismatch) as error:
                    if attempt == ATTEMPTS:
                        raise PullFailed(f"max retries exceeded: {error}") from error
                else:
                    return
                await asyncio.sleep(self.pause_s * attempt**2)
                attempt += 1

    async def _attempt(self, blob: Descriptor, final: Path) -> None:
        url = await self._resolve(self.transfer.blob_url(blob.digest))
        with unfinished(final, ".tmp") as fd:
            have = os.fstat(fd).st_size if blob.size >= self.resume_min else 0
            headers = _TENSOR | ({"Range": f"bytes={have}-"} if have else {})
            async with self.transfer.request("GET", url, headers) as answer:
                if answer.status not in (200, 206):
                    raise TryAgain(f"status {answer.status}")
                at = have if answer.status == 206 else 0
                os.ftruncate(fd, at)
                async for chunk in answer.content.iter_any():
                    at = self.transfer.keep(fd, chunk, at)
            if at < blob.size:
                raise TryAgain("unexpected EOF")
            await asyncio.to_thread(check_blob, Path(f"{final}.tmp"), blob.digest)

    async def _resolve(self, url: URL) -> URL:
        """Return where the bytes are: the first answer of 200, whose body is read for nothing, or another host."""
        for _ in range(MAX_HOPS):
            async with self.transfer.request("GET", url, _TENSOR) as answer:
                if answer.status == 200:
                    async for chunk in answer.content.iter_any():
                        self.transfer.received += len(chunk)
                    return url
            target = target_of(answer)
            if answer.status not in (301, 302, 307) or target is None:
                raise TryAgain(f"status {answer.status}")
            if target.authority != url.authority:
                return target
            url = target
        raise TryAgain("too many redirects")
