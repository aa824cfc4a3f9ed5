"""A client that pulls as Ollama 0.33 does, and is as picky: what it accepts, Ollama accepts.

``pull`` is the classic path (server/images.go, server/download.go), ``pull_tensor`` that of tensor models
(x/transfer/download.go). Neither signs in, and what an interrupted pull left behind is fetched anew, except by
``pull_tensor``.
"""

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from mirror.demo.model import blob_path, check_blob, unfinished
from mirror.errors import DigestMismatch, MirrorError
from mirror.values import ByteRange, Descriptor, Digest, Manifest, ModelName
from mirror.values.http_range import range_header
from mirror.values.manifest import DOCKER_MANIFEST

_OLLAMA = {"User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.26.8"}
_PART = {"User-Agent": "Go-http-client/1.1"}
_TENSOR = {"User-Agent": "ollama-transfer/1.0"}
_ATTEMPTS = 6
_MAX_HOPS = 10
_GAP_S = 30.0
_STALLED = "stalled"


class PullFailed(MirrorError):
    """Ollama would have given up here; the text is Ollama's."""


class MissingLocation(PullFailed):
    """The answer to the un-ranged GET of a blob does not say where to get its parts."""

    def __init__(self) -> None:
        super().__init__("http: no Location header in response")


class _TryAgain(Exception):
    """An answer on which Ollama makes another attempt."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request a pull made, and the final answer where redirects were followed."""

    method: str
    url: str
    range: str | None
    status: int
    x_mirror_cache: str | None


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull took: ``bytes`` of blobs received, ``seconds``, and its requests in the order of the answers."""

    manifest: Manifest
    bytes: int
    seconds: float
    requests: tuple[Asked, ...]

    @property
    def x_mirror_cache(self) -> Counter[str]:
        """How often each value of the X-Mirror-Cache header was seen."""
        return Counter(one.x_mirror_cache for one in self.requests if one.x_mirror_cache is not None)


async def pull(
    url: str,
    name: ModelName | str,
    into: Path | None = None,
    *,
    session: aiohttp.ClientSession | None = None,
    parts: int = 16,
    part_min: int = 100_000_000,
    part_max: int = 1_000_000_000,
    pause_s: float = 1.0,
    stall_s: float = _GAP_S,
    probe_s: float = 30.0,
    progress: Callable[[int], None] | None = None,
) -> PullReport:
    """Pull ``name`` from the registry at ``url`` into a folder like Ollama's own; None throws the bytes away.

    Blobs come one after another, each in ranges of a ``parts``-th (within ``part_min`` and ``part_max`` bytes),
    ``parts`` at once. A failed range is asked again after ``pause_s`` times 1, 2, 4, ...; one without a byte for
    ``stall_s`` at once and without end. ``progress`` hears of the bytes as they come.

    Raises:
        PullFailed: with Ollama's text.
        DigestMismatch: a blob is not what its name says; that blob was deleted.
    """
    async with _running(url, name, into, session, progress) as transfer:
        manifest = await transfer.manifest()
        fetched = [blob.digest for blob in manifest.blobs if not transfer.path(blob.digest).exists()]
        for digest in fetched:
            spans = _spans(await _size(transfer, digest), parts, part_min, part_max)
            location = await _location(transfer, digest, probe_s)
            with unfinished(transfer.path(digest), "-partial") as fd:
                os.ftruncate(fd, 0)
                ranges = _Ranges(transfer, location, fd, asyncio.Semaphore(parts), pause_s, stall_s)
                await _all(ranges.fetch(span) for span in spans)
        # Ollama hashes when all is there, and of several bad blobs deletes the first only.
        for digest in fetched:
            await asyncio.to_thread(check_blob, transfer.path(digest), digest)
        return transfer.report(manifest)


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
    async with _running(url, name, into, session, progress) as transfer:
        manifest = await transfer.manifest()
        tensors = _Tensors(transfer, asyncio.Semaphore(streams), resume_min, pause_s)
        await _all(tensors.fetch(blob) for blob in manifest.blobs)
        return transfer.report(manifest)


@dataclass(slots=True)
class _Transfer:
    """What both kinds of pull share: where from, where to, and what was done so far."""

    base: URL
    name: ModelName
    into: Path
    session: aiohttp.ClientSession
    progress: Callable[[int], None] | None
    began: float = field(default_factory=time.monotonic)
    received: int = 0
    asked: list[Asked] = field(default_factory=list)

    def path(self, digest: Digest) -> Path:
        return blob_path(self.into, digest)

    def blob_url(self, digest: Digest) -> URL:
        return self.base.with_path(f"/v2/{self.name.repository}/blobs/{digest}")

    def keep(self, fd: int, chunk: bytes, at: int) -> int:
        """Write bytes that came; return where the next ones belong."""
        count = os.pwrite(fd, chunk, at)
        self.received += count
        if self.progress is not None:
            self.progress(count)
        return at + count

    @asynccontextmanager
    async def request(
        self, method: str, url: URL, headers: dict[str, str], *, follow: bool = False, gap_s: float = _GAP_S
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask with these headers only, and what Go's client adds: gzip, unless for HEAD or a range."""
        if method == "GET" and "Range" not in headers:
            headers = headers | {"Accept-Encoding": "gzip"}
        gaps = aiohttp.ClientTimeout(total=None, sock_connect=_GAP_S, sock_read=gap_s)
        automatic = ("Accept", "Accept-Encoding")
        async with self.session.request(
            method, url, headers=headers, skip_auto_headers=automatic, allow_redirects=follow, timeout=gaps
        ) as answer:
            cache = answer.headers.get("X-Mirror-Cache")
            self.asked.append(Asked(method, str(answer.url), headers.get("Range"), answer.status, cache))
            yield answer

    async def manifest(self) -> Manifest:
        url = self.base.with_path(f"/v2/{self.name.repository}/manifests/{self.name.tag}")
        async with self.request("GET", url, _OLLAMA | {"Accept": DOCKER_MANIFEST}, follow=True) as answer:
            raw = await answer.read()
        if answer.status == 404:
            raise PullFailed("pull model manifest: file does not exist")
        if answer.status >= 400:
            raise PullFailed(f"pull model manifest: {answer.status}: {raw.decode(errors='replace')}")
        return Manifest.parse(raw)

    def report(self, manifest: Manifest) -> PullReport:
        """Write the manifest, which makes the model exist, and sum up."""
        name = self.name
        path = self.into / "manifests" / name.host / name.namespace / name.model / name.tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest.raw)
        return PullReport(manifest, self.received, time.monotonic() - self.began, tuple(self.asked))


@asynccontextmanager
async def _running(
    url: str,
    name: ModelName | str,
    into: Path | None,
    session: aiohttp.ClientSession | None,
    progress: Callable[[int], None] | None,
) -> AsyncIterator[_Transfer]:
    base = URL(url)
    parsed = name if isinstance(name, ModelName) else ModelName.parse(name, host=base.authority)
    async with AsyncExitStack() as stack:
        into = into or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulled-")))
        if session is None:
            session = await stack.enter_async_context(aiohttp.ClientSession())
        (into / "blobs").mkdir(parents=True, exist_ok=True)
        yield _Transfer(base, parsed, into, session, progress)


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them together; the first error ends the others and is raised alone, as Go's errgroup does."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _spans(size: int, parts: int, part_min: int, part_max: int) -> list[ByteRange]:
    part_bytes = min(max(size // parts, part_min), part_max)
    return [ByteRange(at, min(at + part_bytes, size)) for at in range(0, size, part_bytes)]


async def _size(transfer: _Transfer, digest: Digest) -> int:
    async with transfer.request("HEAD", transfer.blob_url(digest), _OLLAMA, follow=True) as answer:
        if answer.status >= 400:
            raise PullFailed("file does not exist" if answer.status == 404 else f"{answer.status}: ")
        # A missing length counts as 0: the blob becomes an empty file, found out when it is verified.
        return int(answer.headers.get("Content-Length", "0"))


async def _location(transfer: _Transfer, digest: Digest, budget_s: float) -> URL:
    """Return where the parts are to be had; errors are tried over until the budget is spent."""
    attempt = 0
    try:
        async with asyncio.timeout(budget_s):
            while True:
                try:
                    return await _probe(transfer, transfer.blob_url(digest))
                except (aiohttp.ClientError, _TryAgain):
                    attempt += 1
                    await asyncio.sleep(min(attempt**2 * 0.01, 10))
    except TimeoutError as error:
        raise PullFailed("context deadline exceeded") from error


async def _probe(transfer: _Transfer, url: URL) -> URL:
    """Make the un-ranged GET, whose body is not read; redirects within a host name are followed."""
    for _ in range(_MAX_HOPS):
        async with transfer.request("GET", url, _OLLAMA) as answer:
            answer.close()
        if answer.status >= 400:
            raise _TryAgain(f"status {answer.status}")
        target = _target(answer)
        if answer.status in (301, 302, 303, 307, 308) and target is not None and target.host == url.host:
            url = target
            continue
        if answer.status not in (200, 307):
            raise PullFailed(f"unexpected status code {answer.status}")
        if target is None:
            raise MissingLocation
        return target
    raise _TryAgain("stopped after 10 redirects")


def _target(answer: aiohttp.ClientResponse) -> URL | None:
    location = answer.headers.get("Location")
    return None if location is None else answer.url.join(URL(location, encoded=True))


@dataclass(frozen=True, slots=True)
class _Ranges:
    """The ranges of one blob, written to ``fd`` where they belong."""

    transfer: _Transfer
    location: URL
    fd: int
    slots: asyncio.Semaphore
    pause_s: float
    stall_s: float

    async def fetch(self, span: ByteRange) -> None:
        attempt, at, problem = 0, span.start, ""
        async with self.slots:
            while attempt < _ATTEMPTS:
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


@dataclass(frozen=True, slots=True)
class _Tensors:
    """The blobs of a tensor model; their sizes are taken from the manifest."""

    transfer: _Transfer
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
                except (aiohttp.ClientError, TimeoutError, _TryAgain, DigestMismatch) as error:
                    if attempt == _ATTEMPTS:
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
                    raise _TryAgain(f"status {answer.status}")
                at = have if answer.status == 206 else 0
                os.ftruncate(fd, at)
                async for chunk in answer.content.iter_any():
                    at = self.transfer.keep(fd, chunk, at)
            if at < blob.size:
                raise _TryAgain("unexpected EOF")
            await asyncio.to_thread(check_blob, Path(f"{final}.tmp"), blob.digest)

    async def _resolve(self, url: URL) -> URL:
        """Return where the bytes are: the first answer of 200, whose body is read for nothing, or another host."""
        for _ in range(_MAX_HOPS):
            async with self.transfer.request("GET", url, _TENSOR) as answer:
                if answer.status == 200:
                    async for chunk in answer.content.iter_any():
                        self.transfer.received += len(chunk)
                    return url
            target = _target(answer)
            if answer.status not in (301, 302, 307) or target is None:
                raise _TryAgain(f"status {answer.status}")
            if target.authority != url.authority:
                return target
            url = target
        raise _TryAgain("too many redirects")
