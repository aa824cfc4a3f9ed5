"""An Ollama's key, and how it gets a token with it: written from docs/protocol.md, not from the mirror's own code."""

import base64
import re
import secrets
import time
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from mirror.demo.ollama import PullFailed

_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class OllamaSigner:
    """Signs in as an Ollama does; calling it is what ``mirror.demo.ollama.pull`` takes as ``token``."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._session = session

    @property
    def public(self) -> str:
        """The line of id_ed25519.pub."""
        return self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def public_file(self, folder: Path) -> Path:
        """Write id_ed25519.pub."""
        path = folder / "id_ed25519.pub"
        path.write_text(f"{self.public}\n")
        return path

    def request(self, challenge: str, *, ts: int | None = None, nonce: str | None = None) -> tuple[str, str]:
        """Return the address to call for a challenge, and the Authorization that goes with it."""
        said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = [("nonce", nonce or secrets.token_urlsafe(16)), ("service", said["service"])]
        query += [("scope", scope) for scope in said["scope"].split(" ")]
        query.append(("ts", str(int(time.time()) if ts is None else ts)))
        url = f"{said['realm']}?{urlencode(sorted(query))}"
        text = f"GET,{url},{base64.b64encode(_EMPTY.encode()).decode()}"
        signature = base64.b64encode(self._key.sign(text.encode())).decode()
        return url, f"{self.public.split()[1]}:{signature}"

    async def call(self, url: str, authorization: str) -> tuple[int, str]:
        """Ask for the token; return the status, and the token or what came instead."""
        async with self._session.get(URL(url, encoded=True), headers={"Authorization": authorization}) as answer:
            if answer.status >= 400:
                return answer.status, await answer.text()
            return answer.status, str((await answer.json())["token"])

    async def __call__(self, challenge: str) -> str:
        """Get a token. Raises PullFailed with Ollama's text."""
        status, said = await self.call(*self.request(challenge))
        if status >= 400:
            raise PullFailed(f"{status}: {said}")
        return said
