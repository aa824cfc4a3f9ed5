"""Connections to an Ollama: how they are opened, and what it is to us when they fail."""

import asyncio
import io
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from mirror.errors import BackendDown

_PSEUDONYM = re.compile(r"(?:^|,)\s*(?:HTTP/)?1\.[01]\s+(ollama-mirror-[0-9a-f]{12})(?=\s|,|$)", re.IGNORECASE)
_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_LARGE = 1 << 20
"""More is written in pieces: in one it would hold up everything else."""

Body = bytes | AsyncIterable[bytes] | None


class Backend:
    """An Ollama at ``url``. Safe for any number of tasks at once; close it when done.

    Every request has a connection of its own: an Ollama that was started anew since the last one must not cost a
    client its request, which may not be asked twice (RFC 9110 §9.2.2). There is no time-out but that of connecting, as
    a model takes minutes to load before the first byte comes.
    """

    def __init__(self, url: str, connect_timeout_s: float) -> None:
        self.url = url
        self._own = f"ollama-mirror-{secrets.token_hex(6)}"
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """End every connection."""
        await self._session.close()

    async def local_address(self) -> str:
        """Return the IP address of this machine from which the Ollama is reached. Raises BackendDown."""
        where = URL(self.url)
        try:
            async with asyncio.timeout(self._timeout.sock_connect):
                _, writer = await asyncio.open_connection(where.host, where.port)
        except (OSError, TimeoutError) as error:
            raise self.down(error) from error
        address = str(writer.get_extra_info("sockname")[0])
        writer.close()
        return address.partition("%")[0]

    def leads_back(self, via: str) -> bool:
        """Say whether a request with this Via went through here before: the Ollama behind us is then ourselves."""
        return self._own in _PSEUDONYM.findall(via)

    @asynccontextmanager
    async def asked(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        *,
        via: str = "",
        waits: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for ``path``, already quoted, and yield the answer once its head is here; redirects are answers too.

        Leaving the context ends the connection, whatever is still to come. ``headers`` go out as they are, with a Via
        that goes on from ``via`` (RFC 9110 §7.6.3). ``waits``: send the body only once it is wanted (§10.1.1), for an
        Ollama that refuses it ends the connection, and its answer would be lost with what was still being sent. What
        reading the answer raises is for ``chunks`` to translate.

        Raises:
            BackendDown: no connection, or one that ended before the head of an answer had come.
        """
        sent = CIMultiDict(headers or {})
        sent["Via"] = f"{via}, 1.1 {self._own}" if via else f"1.1 {self._own}"
        try:
            answer = await self._session.request(
                method,
                URL(f"{self.url}{path}", encoded=True),
                headers=sent,
                data=io.BytesIO(body) if isinstance(body, bytes) and len(body) > _LARGE else body,
                allow_redirects=False,
                skip_auto_headers=_OURS,
                expect100=waits,
                timeout=self._timeout,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise self.down(error) from error
        async with answer:
            yield answer

    async def chunks(self, answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """Yield the body of an answer as it comes; close it when done. Raises BackendDown where it ends too early."""
        try:
            async for chunk in answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise self.down(error) from error

    def down(self, error: Exception) -> BackendDown:
        """Return what a failed connection is to us."""
        said = str(error) or type(error).__name__
        return BackendDown(f"the Ollama behind this mirror, {self.url}, does not answer: {said}")
