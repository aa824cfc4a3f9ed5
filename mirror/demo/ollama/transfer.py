"""What both kinds of pull share: where from, where to, what is asked and how, and how it fails."""

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from mirror.demo.model import blob_path
from mirror.errors import MirrorError
from mirror.values import Digest, Manifest, ModelName
from mirror.values.manifest import DOCKER_MANIFEST

GetToken = Callable[[str], Awaitable[str]]
"""Gets a token for a challenge (WWW-Authenticate), as server/auth.go does with the key of the Ollama."""

OLLAMA = {"User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.26.8"}
ATTEMPTS = 6
MAX_HOPS = 10
GAP_S = 30.0


class PullFailed(MirrorError):
    """Ollama would have given up here; the text is Ollama's."""


class MissingLocation(PullFailed):
    """The answer to the un-ranged GET of a blob does not say where to get its parts."""

    def __init__(self) -> None:
        super().__init__("http: no Location header in response")


class TryAgain(Exception):
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


@dataclass(slots=True)
class Transfer:
    """What both kinds of pull share: where from, where to, and what was done so far."""

    base: URL
    name: ModelName
    into: Path
    session: aiohttp.ClientSession
    progress: Callable[[int], None] | None
    get_token: GetToken | None = None
    token: str | None = None
    began: float = field(default_factory=time.monotonic)
    received: int = 0
    asked: list[Asked] = field(default_factory=list)

    def path(self, digest: Digest) -> Path:
        """Where a blob goes."""
        return blob_path(self.into, digest)

    def blob_url(self, digest: Digest) -> URL:
        """Where a blob is asked for."""
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
        self, method: str, url: URL, headers: dict[str, str], *, follow: bool = False, gap_s: float = GAP_S
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask with these headers only, and what Go's client adds: gzip, unless for HEAD or a range.

        Where that is refused and this client signs in, ask once more with a token; never for a range.
        """
        signs = self.get_token is not None and "Range" not in headers
        if signs and self.token is None:
            async with self._request(method, url, headers, follow=follow, gap_s=gap_s) as answer:
                if answer.status != 401 or self.get_token is None:
                    yield answer
                    return
                challenge = answer.headers.get("WWW-Authenticate", "")
            self.token = await self.get_token(challenge)
        shown = {"Authorization": f"Bearer {self.token}"} if signs else {}
        async with self._request(method, url, headers | shown, follow=follow, gap_s=gap_s) as answer:
            yield answer

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, headers: dict[str, str], *, follow: bool, gap_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if method == "GET" and "Range" not in headers:
            headers = headers | {"Accept-Encoding": "gzip"}
        gaps = aiohttp.ClientTimeout(total=None, sock_connect=GAP_S, sock_read=gap_s)
        automatic = ("Accept", "Accept-Encoding")
        async with self.session.request(
            method, url, headers=headers, skip_auto_headers=automatic, allow_redirects=follow, timeout=gaps
        ) as answer:
            cache = answer.headers.get("X-Mirror-Cache")
            self.asked.append(Asked(method, str(answer.url), headers.get("Range"), answer.status, cache))
            yield answer

    async def manifest(self) -> Manifest:
        """Ask for the manifest. Raises PullFailed with Ollama's text."""
        url = self.base.with_path(f"/v2/{self.name.repository}/manifests/{self.name.tag}")
        async with self.request("GET", url, OLLAMA | {"Accept": DOCKER_MANIFEST}, follow=True) as answer:
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
async def running(
    url: str,
    name: ModelName | str,
    into: Path | None,
    session: aiohttp.ClientSession | None,
    progress: Callable[[int], None] | None,
    token: GetToken | None = None,
) -> AsyncIterator[Transfer]:
    """What a pull works with; a folder or session that is not given is made for as long."""
    base = URL(url)
    parsed = name if isinstance(name, ModelName) else ModelName.parse(name, host=base.authority)
    async with AsyncExitStack() as stack:
        into = into or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulled-")))
        if session is None:
            session = await stack.enter_async_context(aiohttp.ClientSession())
        (into / "blobs").mkdir(parents=True, exist_ok=True)
        yield Transfer(base, parsed, into, session, progress, token)


async def all_of(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them together; the first error ends the others and is raised alone, as Go's errgroup does."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def target_of(answer: aiohttp.ClientResponse) -> URL | None:
    """Return where an answer's Location leads, if it has one."""
    location = answer.headers.get("Location")
    return None if location is None else answer.url.join(URL(location, encoded=True))
