"""Connections to an Ollama: how they are opened, and what it is to us when they fail."""

import asyncio
import io
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from mirror.errors import BackendDown
from mirror.tracing import pass_on, span

_PSEUDONYM = re.compile(r"(?:^|,)\s*(?:HTTP/)?1\.[01]\s+(ollama-mirror-[0-9a-f]{12})(?=\s|,|$)", re.IGNORECASE)
_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_LARGE = 1 << 20
"""More is written in pieces: in one it would hold up everything else."""

_KEPT_S = 30.0
_AT_ONCE_S = 0.1

Body = bytes | AsyncIterable[bytes] | None


def new_pseudonym() -> str:
    """Return a name for a mirror in Via that no other has (RFC 9110 §7.6.3)."""
    return f"ollama-mirror-{secrets.token_hex(6)}"


def was_here(pseudonym: str, via: str) -> bool:
    """Say whether a request with this Via went through the mirror of that name before."""
    return pseudonym in _PSEUDONYM.findall(via)


_used_before: ContextVar[bool] = ContextVar("mirror_connection_used_before", default=False)
"""Whether the connection that this task was last given had carried a request before."""


class _Remembering(aiohttp.TCPConnector):
    """Remembers which of its connections it has given away before. aiohttp's tracing tells it too, at three times the
    price: it wants to be awaited at every step of every request.
    """

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=_KEPT_S)
        self._known: WeakSet[object] = WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        """Give a connection away."""
        connection = await super().connect(req, traces, timeout)
        _used_before.set(connection.protocol in self._known)
        self._known.add(connection.protocol)
        return connection


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


class Backend:
    """An Ollama at ``url``. Safe for any number of tasks at once; close it when done.

    Requests whose body is at hand share connections. One that was kept open may have been closed by an Ollama that was
    started anew since, which must not cost a client its request: that is asked again, on a connection of its own, as
    nothing of it was worked on (RFC 9110 §9.2.2). Bodies that are streamed always have a connection of their own.
    There is no time-out but that of connecting, as a model takes minutes to load before the first byte comes.
    """

    def __init__(
        self, url: str, connect_timeout_s: float, bearer: str | None = None, pseudonym: str | None = None
    ) -> None:
        """``bearer`` is shown with every request, where what stands there is no Ollama itself but a node.

        ``pseudonym`` is what the mirror calls itself in Via, the same to every Ollama. ``url`` may be set anew: later
        requests go there.
        """
        self.url = url
        self._bearer = bearer
        self.pseudonym = pseudonym or new_pseudonym()
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._kept = _session(_Remembering())
        self._own_session = _session(aiohttp.TCPConnector(limit=0, force_close=True))

    async def close(self) -> None:
        """End every connection."""
        await self._kept.close()
        await self._own_session.close()

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
        return was_here(self.pseudonym, via)

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
        if self._bearer is not None:
            sent["Authorization"] = f"Bearer {self._bearer}"
        sent["Via"] = f"{via}, 1.1 {self.pseudonym}" if via else f"1.1 {self.pseudonym}"
        data = io.BytesIO(body) if isinstance(body, bytes) and len(body) > _LARGE else body
        with span("backend", url=self.url, path=path.partition("?")[0]):
            pass_on(sent)
            answer = await self._answer(method, path, sent, data, waits=waits)
            async with answer:
                yield answer

    async def _answer(
        self, method: str, path: str, headers: CIMultiDict[str], data: Any, *, waits: bool
    ) -> aiohttp.ClientResponse:
        request = {
            "headers": headers,
            "data": data,
            "allow_redirects": False,
            "skip_auto_headers": _OURS,
            "expect100": waits,
            "timeout": self._timeout,
        }
        begun = time.monotonic()
        url, at_hand = URL(f"{self.url}{path}", encoded=True), data is None or isinstance(data, bytes)
        try:
            if not at_hand:
                return await self._own_session.request(method, url, **request)
            _used_before.set(False)
            try:
                return await self._kept.request(method, url, **request)
            except (aiohttp.ServerDisconnectedError, ConnectionError):
                if not _used_before.get() or time.monotonic() - begun > _AT_ONCE_S:
                    raise  # else it may have been worked on
                return await self._own_session.request(method, url, **request)
        except (aiohttp.ClientError, OSError) as error:
            raise self.down(error) from error

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
        answered = not isinstance(error, aiohttp.ClientConnectorError)
        return BackendDown(f"the Ollama behind this mirror, {self.url}, does not answer: {said}", answered=answered)
