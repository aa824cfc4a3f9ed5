"""The path of ordinary models: one blob after another, each in ranges (server/images.go, server/download.go)."""

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
    GAP_S,
    MAX_HOPS,
    OLLAMA,
    GetToken,
    MissingLocation,
    PullFailed,
    PullReport,
    Transfer,
    TryAgain,
    all_of,
    running,
    target_of,
)
from mirror.values import ByteRange, Digest, ModelName
from mirror.values.http_range import range_header

_PART = {"User-Agent": "Go-http-client/1.1"}
_STALLED = "stalled"


async def pull(
    url: str,
    name: ModelName | str,
    into: Path | None = None,
    *,
    session: aiohttp.ClientSession | None = None,
    token: GetToken | None = None,
    parts: int = 16,
    part_min: int = 100_000_000,
    part_max: int = 1_000_000_000,
    pause_s: float = 1.0,
    stall_s: float = GAP_S,
    probe_s: float = 30.0,
    progress: Callable[[int], None] | None = None,
) -> PullReport:
    """Pull ``name`` from the registry at ``url`` into a folder like Ollama's own; None throws the bytes away.

    Blobs come one after another, each in ranges of a ``parts``-th (within ``part_min`` and ``part_max`` bytes),
    ``parts`` at once. A failed range is asked again after ``pause_s`` times 1, 2, 4, ...; one without a byte for
    ``stall_s`` at once and without end. ``progress`` hears of the bytes as they come. ``token`` gets one where the
    registry asks for it; the ranges are asked for without.

    Raises:
        PullFailed: with Ollama's text.
        DigestMismatch: a blob is not what its name says; that blob was deleted.
    """
    async with running(url, name, into, session, progress, token) as transfer:
        manifest = await transfer.manifest()
        fetched = [blob.digest for blob in manifest.blobs if not transfer.path(blob.digest).exists()]
        for digest in fetched:
            spans = _spans(await _size(transfer, digest), parts, part_min, part_max)
            location = await _location(transfer, digest, probe_s)
            with unfinished(transfer.path(digest), "-partial") as fd:
                os.ftruncate(fd, 0)
                ranges = _Ranges(transfer, location, fd, asyncio.Semaphore(parts), pause_s, stall_s)
                await all_of(ranges.fetch(span) for span in spans)
        # Ollama hashes when all is there, and of several bad blobs deletes the first only.
        for digest in fetched:
            await asyncio.to_thread(check_blob, transfer.path(digest), digest)
        return transfer.report(manifest)


def _spans(size: int, parts: int, part_min: int, part_max: int) -> list[ByteRange]:
    part_bytes = min(max(size // parts, part_min), part_max)
    return [ByteRange(at, min(at + part_bytes, size)) for at in range(0, size, part_bytes)]


async def _size(transfer: Transfer, digest: Digest) -> int:
    async with transfer.request("HEAD", transfer.blob_url(digest), OLLAMA, follow=True) as answer:
        if answer.status >= 400:
            raise PullFailed("file does not exist" if answer.status == 404 else f"{answer.status}: ")
        # A missing length counts as 0: the blob becomes an empty file, found out when it is verified.
        return int(answer.headers.get("Content-Length", "0"))


async def _location(transfer: Transfer, digest: Digest, budget_s: float) -> URL:
    """Return where the parts are to be had; errors are tried over until the budget is spent."""
    attempt = 0
    try:
        async with asyncio.timeout(budget_s):
            while True:
                try:
                    return await _probe(transfer, transfer.blob_url(digest))
                except (aiohttp.ClientError, TryAgain):
                    attempt += 1
                    await asyncio.sleep(min(attempt**2 * 0.01, 10))
    except TimeoutError as error:
        raise PullFailed("context deadline exceeded") from error


async def _probe(transfer: Transfer, url: URL) -> URL:
    """Make the un-ranged GET, whose body is not read; redirects within a host name are followed."""
    for _ in range(MAX_HOPS):
        async with transfer.request("GET", url, OLLAMA) as answer:
            answer.close()
        if answer.status >= 400:
            raise TryAgain(f"status {answer.status}")
        target = target_of(answer)
        if answer.status in (301, 302, 303, 307, 308) and target is not None and target.host == url.host:
            url = target
            continue
        if answer.status not in (200, 307):
            raise PullFailed(f"unexpected status code {answer.status}")
        if target is None:
            raise MissingLocation
        return target
    raise TryAgain("stopped after 10 redirects")


@dataclass(frozen=True, slots=True)
class _Ranges:
    """The ranges of one blob, written to ``fd`` where they belong."""

    transfer: Transfer
    location: URL
    fd: int
    slots: asyncio.Semaphore
    pause_s: float
    stall_s: float

    async def fetch(self, span: ByteRange) -> None:
        attempt, at, problem = 0, span.start, ""
        async with self.slots:
            while attempt < ATTEMPTS:
                at, problem = await self._attempt(ByteRange(at, span.stop))
                if at == span.stop:
                    return
                if problem != _STALLED:
                    await asyncio.sleep(self.pause_s * 2**attempt)
                    attempt += 1
        raise PullFailed(f"max retries exceeded: {problem}")

    async def _attempt(self, span: ByteRange) -> tuple[int, str]:
        """Ask for ``span``; return up to where its bytes are kept, and what was wrong.

        Status and headers are not looked at, and nothing past ``span`` is read: just as in Ollama.
        """
        headers = _PART | {"Range": range_header(span)}
        at = span.start
        try:
            async with self.transfer.request("GET", self.location, headers, follow=True, gap_s=self.stall_s) as answer:
                while at < span.stop and (chunk := await answer.content.readany()):
                    at = self.transfer.keep(self.fd, chunk[: span.stop - at], at)
        except TimeoutError:
            return span.start, _STALLED
        except aiohttp.ClientError as error:
            return at, str(error)
        # A body that simply ends, an error's too, is Go's EOF: nothing of the attempt is kept.
        return (at, "") if at == span.stop else (span.start, "EOF")
