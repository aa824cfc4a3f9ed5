"""Keys of Ollamas that sign, and a mirror's keys without a mirror."""

import base64
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mirror.access import Keyring, Keys, Scope, Seal
from mirror.app import RunningMirror
from mirror.config import Settings
from mirror.config.sections import SecuritySettings
from mirror.values import ByteRange
from tests.fakes.registry import running_fake_registry
from tests.support import Answer, Machine, mirrored

NOTHING = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="


@dataclass
class Signer:
    """An Ollama with a key of its own."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def line(self) -> str:
        """What its id_ed25519.pub holds."""
        public = self.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return f"{public.decode()} ollama@laptop"

    def signed(self, url: str, method: str = "GET") -> str:
        """The Authorization for a request of ``url``."""
        signature = base64.b64encode(self.private.sign(f"{method},{url},{NOTHING}".encode())).decode()
        return f"{self.line.split()[1]}:{signature}"

    def asking(self, realm: str, *, ts: float | None = None, nonce: str | None = None) -> tuple[str, str]:
        """The address to ask for a token, and the Authorization."""
        query = {
            "nonce": secrets.token_urlsafe(16) if nonce is None else nonce,
            "scope": "repository:library/m:pull",
            "service": "mirror",
            "ts": str(int(time.time() if ts is None else ts)),
        }
        url = f"{realm}?{urlencode(query)}"
        return url, self.signed(url)


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    at: float = 1_800_000_000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.at

    def instant(self) -> datetime:
        """The same as an instant."""
        return datetime.fromtimestamp(self.at, UTC)


def security(**said: Any) -> SecuritySettings:
    """The section with these settings."""
    return Settings(security=said).security


def keys_in(folder: Path, clock: Clock | None = None, **said: Any) -> Keys:
    """The keys of a state folder, as a mirror looks at them."""
    clock = clock or Clock(time.time())
    settings = security(**said)
    seal = Seal.opened(folder, settings.ticket_ttl, clock)
    return Keys(Keyring(folder, clock.instant), seal, settings, clock.instant, clock)


async def ask(
    client: Machine, path: str, shown: Mapping[str, str], span: ByteRange | None = None, *, method: str = "GET"
) -> Answer:
    """Ask with these headers, which have underscores for hyphens."""
    return await client.get(path, span, method=method, **shown)


@asynccontextmanager
async def proxied(folder: Path, **changes: Any) -> AsyncIterator[tuple[RunningMirror, Machine]]:
    """A mirror for which this machine is a proxy, so that callers can come from anywhere."""
    said = {"security__trusted_proxies": ("127.0.0.1",), **changes}
    async with running_fake_registry() as fake, mirrored(folder, fake, **said) as opened:
        yield opened


def made(folder: Path, *scopes: Scope) -> dict[str, str]:
    """Make a key for each scope; the secrets by scope."""
    ring = Keyring(folder / "state")
    return {scope.value: ring.add(scope.value, [scope])[1] or "" for scope in scopes}
