"""The ways by which a client reaches the mirror, as curl takes them; one port answers them all."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarl import URL

from mirror.app import RunningMirror, running_mirror
from mirror.listen import Authority, Names
from tests.fakes.registry import FakeRegistry
from tests.process import run
from tests.support import settings

HOST = "registry.ollama.ai"
WAYS = ("http", "https", "http proxy", "https proxy", "dns", "https dns")


@dataclass(frozen=True, slots=True)
class Doors:
    """A running mirror with a CA, by every way."""

    mirror: RunningMirror
    ca: Path

    @property
    def port(self) -> int:
        """The one port."""
        return URL(self.mirror.url).port or 0

    def curl(self, way: str, path: str) -> list[str]:
        """The arguments with which curl gets ``path`` by one of WAYS."""
        here = f"127.0.0.1:{self.port}"
        trusting = ["--cacert", str(self.ca)]
        ways = {
            "http": [f"http://{here}{path}"],
            "https": [*trusting, f"https://{here}{path}"],
            "http proxy": ["-x", f"http://{here}", f"http://{HOST}{path}"],
            "https proxy": [*trusting, "-x", f"http://{here}", f"https://{HOST}{path}"],
            "dns": ["--resolve", f"{HOST}:{self.port}:127.0.0.1", f"http://{HOST}:{self.port}{path}"],
            "https dns": [
                *trusting,
                *("--resolve", f"{HOST}:{self.port}:127.0.0.1"),
                f"https://{HOST}:{self.port}{path}",
            ],
        }
        return ways[way]

    async def get(self, way: str, path: str, into: Path, *more: str) -> bytes:
        """Get ``path`` with curl; what it gets is right or this raises."""
        arguments = ("--fail", "--silent", "--show-error", "--noproxy", "", "--output", str(into), *more)
        done = await run("curl", *arguments, *self.curl(way, path))
        assert done.code == 0, done.err
        return into.read_bytes()

    def context(self) -> ssl.SSLContext:
        """What a client in Python needs to trust the CA."""
        return ssl.create_default_context(cafile=str(self.ca))


@asynccontextmanager
async def doors(folder: Path, fake: FakeRegistry, **changes: Any) -> AsyncIterator[Doors]:
    """A mirror of ``fake`` with a CA."""
    said = settings(folder, fake.url, **changes)
    Authority.make(folder / "state", Names.of(said))
    async with running_mirror(said) as mirror:
        yield Doors(mirror, folder / "state" / "tls" / "ca.pem")


async def tls_socket(port: int, context: ssl.SSLContext, name: str | None = None) -> ssl.SSLObject:
    """Shake hands with the mirror and leave; returns what was agreed. Raises SSLError."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name or "127.0.0.1")
    agreed = writer.get_extra_info("ssl_object")
    writer.close()
    await writer.wait_closed()
    assert isinstance(agreed, ssl.SSLObject)
    return agreed
