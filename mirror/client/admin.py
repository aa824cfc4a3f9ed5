"""The admin API, called."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
from yarl import URL

from mirror.errors import ServerError

_SMALL_S = 30.0


class AdminClient:
    """One running mirror. Use it as a context manager. Objects come back as the API's JSON.

    Every call raises ServerError where the mirror is not to be reached or answers with a problem; its status is
    then 0 or HTTP's.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = URL(url)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = aiohttp.ClientSession(headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def models(self) -> list[dict[str, Any]]:
        """List the models in the store."""
        return list((await self._call("GET", "models"))["models"])

    async def model(self, name: str) -> dict[str, Any]:
        """Show one model."""
        return await self._call("GET", "models", name)

    async def remove(self, name: str) -> dict[str, Any]:
        """Take a model out of the store."""
        return await self._call("DELETE", "models", name)

    @asynccontextmanager
    async def pull(self, name: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Fetch a model; yields steps of progress."""
        async with self._lines("pulls", {"name": name}) as steps:
            yield steps

    @asynccontextmanager
    async def verify(self) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Check the store; yields steps of progress and problems."""
        async with self._lines("store/verify", {}) as steps:
            yield steps

    async def _call(self, method: str, *path: str) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=_SMALL_S)
        try:
            async with self._session.request(method, self._path(*path), timeout=timeout) as reply:
                return await self._good(reply)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerError(f"{self.url} does not answer: {str(error) or type(error).__name__}", 0) from error

    @asynccontextmanager
    async def _lines(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SMALL_S)
        try:
            async with self._session.post(self._path(*path.split("/")), json=body, timeout=timeout) as reply:
                if reply.status >= 300:
                    await self._good(reply)
                yield (json.loads(line) async for line in reply.content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerError(f"{self.url} ended the answer: {str(error) or type(error).__name__}", 0) from error

    async def _good(self, reply: aiohttp.ClientResponse) -> dict[str, Any]:
        try:
            body = await reply.json(content_type=None)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ServerError(f"{self.url} answered {reply.status} and is no mirror", reply.status)
        if reply.status >= 300:
            raise ServerError(str(body.get("detail", f"{self.url} answered {reply.status}")), reply.status)
        return body

    def _path(self, *parts: str) -> URL:
        return self.url.joinpath("mirror", "v1", *parts)
