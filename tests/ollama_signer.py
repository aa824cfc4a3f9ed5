"""How an Ollama gets a token with its key: written from docs/protocol.md, not from the mirror's own code."""

import re
import secrets
import time
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from mirror.demo.ollama import PullFailed
from tests.access import Signer


class OllamaSigner:
    """Signs in as an Ollama does; calling it is what ``mirror.demo.ollama.pull`` takes as ``token``."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._signer = Signer()
        self._session = session

    @property
    def public(self) -> str:
        """The line of id_ed25519.pub."""
        return self._signer.line

    def request(self, challenge: str, *, ts: int | None = None, nonce: str | None = None) -> tuple[str, str]:
        """Return the address to call for a challenge, and the Authorization that goes with it."""
        said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = [("nonce", nonce or secrets.token_urlsafe(16)), ("service", said["service"])]
        query += [("scope", scope) for scope in said["scope"].split(" ")]
        query.append(("ts", str(int(time.time()) if ts is None else ts)))
        url = f"{said['realm']}?{urlencode(sorted(query))}"
        return url, self._signer.signed(url)

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
