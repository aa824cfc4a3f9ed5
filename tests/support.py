"""A mirror in front of a fake registry, with short time-outs, and a client that keeps what it gets.

The time after which silence is a stall is not that short: a quarter of it is what a fill's readers are patient for.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from mirror.app import RunningMirror, running_mirror
from mirror.config import Settings
from mirror.demo.model import MODEL_TYPE
from mirror.events import Events
from mirror.fill import Fill
from mirror.upstream import Address, Transfer, Upstream
from mirror.values import ByteRange, Digest, Manifest, ModelName
from mirror.values.http_range import range_header
from tests.fakes.registry import FakeRegistry

MODEL = ModelName.parse("library/m")
MANIFEST = "/v2/library/m/manifests/latest"
SOON_S = 10.0
"""The deadline for what should happen at once."""


def settings(folder: Path, url: str, **changes: Any) -> Settings:
    """Settings of a mirror below ``folder``; ``changes`` are keys such as ``upstream__connections``."""
    said: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": 0, "shutdown": 0.2},
        "cache": {"directory": folder / "store", "state": folder / "state"},
        "pulls": {"disk_threshold": "100%"},
        "upstream": {"url": url, "stall_timeout": 5, "stale_timeout": 0.5, "retry_delay": 0.01, "timeout": 5},
    }
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (said.setdefault(section, {}) if section else said)[name] = value
    return Settings(**said)


@asynccontextmanager
async def upstream(folder: Path, url: str, **changes: Any) -> AsyncIterator[Upstream]:
    """The registry at ``url`` as a mirror sees it; ``changes`` are keys of the section."""
    changes = {"stall_timeout": 0.5, **changes}
    said = settings(folder, url, **{f"upstream__{key}": value for key, value in changes.items()}).upstream
    opened = Upstream(said, folder / "key", Events())
    try:
        yield opened
    finally:
        await opened.close()


async def carried(up: Upstream, address: Address, into: bytearray) -> None:
    """Bring a whole blob in by one transfer."""

    def sink(offset: int, content: memoryview) -> None:
        into[offset : offset + len(content)] = content

    async with asyncio.timeout(SOON_S):
        await up.carry(address, Transfer(ByteRange(0, len(into)), sink, urgent=lambda: True))


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes no two pieces of which are alike."""
    return random.Random(seed).randbytes(size)


def add_blob(fake: FakeRegistry, size: int, name: str = "library/m:latest", seed: int = 0) -> tuple[bytes, Digest]:
    """Hold a model with one large blob; return that blob."""
    content = noise(size, seed)
    fake.add_model(name, {MODEL_TYPE: content})
    return content, Digest.of(content)


def blob_path(digest: Digest, repository: str = "library/m") -> str:
    """The path of a blob."""
    return f"/v2/{repository}/blobs/{digest}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as far as it came; ``broken`` if it ended before it should have."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: bool

    @property
    def cache(self) -> str | None:
        """Where the mirror says it came from."""
        return self.headers.get("X-Mirror-Cache")


class Machine:
    """A client with connections of its own."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self.session = session

    async def get(self, path: str, span: ByteRange | None = None, *, method: str = "GET", **headers: str) -> Answer:
        """Ask, and read all that comes. ``headers`` have underscores for hyphens."""
        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        if span is not None:
            asked["Range"] = range_header(span)
        body, broken = bytearray(), False
        async with self.session.request(method, self.url(path), headers=asked, allow_redirects=False) as answer:
            try:
                async for chunk in answer.content.iter_any():
                    body += chunk
            except aiohttp.ClientError:
                broken = True
            return Answer(answer.status, answer.headers.copy(), bytes(body), broken)

    def url(self, path: str) -> URL:
        """The address of ``path``, which is sent as it is written."""
        return URL(f"{self._url}{path}", encoded=True)

    async def manifest(self, path: str = MANIFEST) -> Manifest:
        """Fetch a manifest, as every pull does first."""
        return Manifest.parse((await self.get(path)).body)


@asynccontextmanager
async def machine(url: str) -> AsyncIterator[Machine]:
    """A client of the server at ``url``."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=50)) as session:
        yield Machine(url, session)


@asynccontextmanager
async def mirrored(folder: Path, fake: FakeRegistry, **changes: Any) -> AsyncIterator[tuple[RunningMirror, Machine]]:
    """A mirror in front of ``fake``, and a client of it."""
    async with running_mirror(settings(folder, fake.url, **changes)) as mirror, machine(mirror.url) as client:
        yield mirror, client


def parts(size: int, count: int = 16) -> list[ByteRange]:
    """The ranges Ollama asks for at once."""
    step = -(-size // count)
    return [ByteRange(at, min(at + step, size)) for at in range(0, size, step)]


def locates(fake: FakeRegistry) -> int:
    """How many bytes the mirror asked for only to find a blob: one each."""
    return sum(entry.range == "bytes=0-0" for entry in fake.asked("blob"))


async def until(mirror: RunningMirror, condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds, looked at with every piece of the mirror's news."""
    with mirror.parts.events.subscribe() as news:
        async with asyncio.timeout(SOON_S):
            while not condition():
                await anext(news)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds: for what nobody tells."""
    async with asyncio.timeout(SOON_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def ended(fill: Fill | None) -> None:
    """Wait for the end of a fill, which may have come."""
    if fill is not None:
        await fill.ended.wait()


def written(folder: Path) -> set[str]:
    """What lies in the store and beside it that came from outside: blobs, manifests, partials."""
    folders = (folder / "store", folder / "state" / "partial", folder / "state" / "staged")
    return {str(path.relative_to(folder)) for one in folders for path in one.rglob("*") if path.is_file()}
