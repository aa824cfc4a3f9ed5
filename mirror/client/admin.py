"""The admin API, called."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

import aiohttp
from yarl import URL

from mirror.client.events import parsed
from mirror.errors import ServerError

_SMALL_S = 30.0
_SILENT_S = 60.0
"""A mirror that tells its news says at least every 15 seconds that it is still here."""
_CHUNK = 1 << 20

Steps = AsyncIterator[dict[str, Any]]
News = AsyncIterator[tuple[str, dict[str, Any]]]


class AdminClient:
    """One running mirror. Use it as a context manager. Objects come back as the API's JSON.

    Every call raises ServerError where the mirror is not to be reached or answers with a problem; its status is
    then 0 or HTTP's.
    """

    def __init__(self, url: str, api_key: str | Callable[[], str] | None = None) -> None:
        """``api_key`` may be called for a new one at every request, for those that are good for a minute only."""
        self.url = URL(url)
        self._api_key = api_key
        self._session = aiohttp.ClientSession()

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

    async def remove(self, name: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Take a model out of the store, or say what that would free."""
        return await self._call("DELETE", "models", name, query={"dry_run": str(dry_run).lower()})

    def pull(self, name: str) -> AbstractAsyncContextManager[Steps]:
        """Fetch a model; yields steps of progress."""
        return self._lines("pulls", {"name": name})

    def outdated(self, names: Sequence[str]) -> AbstractAsyncContextManager[Steps]:
        """Ask which models are older than what is upstream; yields one step each, and how many at the end."""
        return self._lines("outdated", {"names": list(names)})

    async def earlier(self, name: str) -> list[dict[str, Any]]:
        """List what a tag meant before, the latest first."""
        return list((await self._call("GET", "earlier", name))["earlier"])

    def rollback(self, name: str, to: str | None) -> AbstractAsyncContextManager[Steps]:
        """Put a tag back to an earlier manifest, and hold it there; yields steps of progress."""
        return self._lines("models/rollback", {"name": name, **({"to": to} if to is not None else {})})

    async def release(self, name: str) -> dict[str, Any]:
        """Let a tag move with its upstream again."""
        return await self._call("POST", "models", "release", body={"name": name})

    async def queue(self) -> dict[str, Any]:
        """Show the queue of pulls, and when windows open."""
        return await self._call("GET", "queue")

    async def queue_history(self, most: int) -> dict[str, Any]:
        """Show jobs that are over."""
        return await self._call("GET", "queue", "history", query={"n": str(most)})

    async def queue_add(self, name: str, *, priority: int, at_once: bool) -> dict[str, Any]:
        """Want a model."""
        if not priority and not at_once:
            return await self._call("POST", "queue", body={"name": name})
        return await self._call("POST", "queue", "add", body={"name": name, "priority": priority, "at_once": at_once})

    async def queue_act(self, action: str, job: str = "", position: int | None = None) -> dict[str, Any]:
        """Put the queue in order: cancel, move, now, pause, resume, retry or run."""
        body = {**({"job": job} if job else {}), **({"position": position} if position is not None else {})}
        return await self._call("POST", "queue", action, body=body)

    async def turns(self) -> dict[str, Any]:
        """Show who waits for a turn and who has one, and the Ollamas."""
        return await self._call("GET", "turns")

    async def turns_act(self, action: str, **said: str | float) -> dict[str, Any]:
        """Change who gets turns: block, unblock, weigh, drain or enable."""
        return await self._call("POST", "turns", action, body=said)

    async def usage_by_day(self, days: int) -> dict[str, Any]:
        """Show what each user had of each model on each of the last days."""
        return await self._call("GET", "usage", query={"days": str(days)})

    async def stats(self) -> dict[str, Any]:
        """Say what was served and fetched, and which fills run."""
        return await self._answer("GET", self.url.joinpath("mirror", "stats"))

    @asynccontextmanager
    async def events(self) -> AsyncIterator[News]:
        """Follow the news; yields the topic and what is said for each piece of it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SMALL_S, sock_read=_SILENT_S)
        async with self._asked("GET", "events", timeout) as reply:
            yield parsed(reply.content)

    def verify(self) -> AbstractAsyncContextManager[Steps]:
        """Check the store; yields steps of progress and problems."""
        return self._lines("store/verify", {})

    async def usage(self) -> dict[str, Any]:
        """Say what the store takes, of what it may."""
        return await self._call("GET", "store")

    def gc(self, *, dry_run: bool) -> AbstractAsyncContextManager[Steps]:
        """Tidy up; yields what goes, and at the end what it comes to."""
        return self._lines("store/gc", {"dry_run": dry_run})

    async def clear(self, *, dry_run: bool) -> dict[str, Any]:
        """Remove everything that is not pinned or in use."""
        where = self.url.joinpath("mirror", "cache").with_query(dry_run=str(dry_run).lower())
        return await self._answer("DELETE", where, timeout_s=None)

    def scrub(self, rate: int | None, *, repair: bool) -> AbstractAsyncContextManager[Steps]:
        """Hash every blob again, at most ``rate`` bytes per second; yields progress and what is damaged."""
        return self._lines("store/scrub", {"repair": repair, **({"rate": rate} if rate is not None else {})})

    def repair(self) -> AbstractAsyncContextManager[Steps]:
        """Fetch again what damaged models lack; yields progress and how each ended."""
        return self._lines("store/repair", {})

    async def pins(self) -> dict[str, Any]:
        """List the patterns that pin models."""
        return await self._call("GET", "store", "pins")

    async def pin(self, pattern: str) -> dict[str, Any]:
        """Pin the models that a pattern matches."""
        return await self._call("POST", "store", "pins", body={"pattern": pattern})

    async def unpin(self, pattern: str) -> dict[str, Any]:
        """Take back a pin."""
        return await self._call("DELETE", "store", "pins", pattern)

    async def describe_bundle(self, names: Sequence[str], since: Sequence[str]) -> dict[str, Any]:
        """Say what a bundle of these models holds, without the blobs whose digests are in ``since``."""
        return await self._call("POST", "store", "export", body={"names": names, "since": since, "describe": True})

    async def bundle(self, names: Sequence[str], since: Sequence[str], start: int) -> AsyncGenerator[bytes, None]:
        """Yield the tar of a bundle from byte ``start`` on."""
        body = {"names": names, "since": since, "start": start}
        async with self._long("store/export", json=body) as reply:
            async for chunk in reply.content.iter_chunked(_CHUNK):
                yield chunk

    def import_tar(self, chunks: AsyncIterator[bytes], size: int | None) -> AbstractAsyncContextManager[Steps]:
        """Take in the models of a tar; yields how many of its bytes were read, and at the end what came in."""
        headers = {"Content-Type": "application/x-tar", **({"Content-Length": str(size)} if size is not None else {})}
        return self._lines("store/import", data=chunks, headers=headers)

    def import_folder(self, folder: str, names: Sequence[str] | None) -> AbstractAsyncContextManager[Steps]:
        """Take in models of a folder on the mirror's machine; yields progress, and at the end what came in."""
        return self._lines("store/import", {"folder": folder, **({"names": names} if names is not None else {})})

    async def keys(self) -> dict[str, Any]:
        """List the keys, and what needs one."""
        return await self._call("GET", "keys")

    async def add_key(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        user: str | None = None,
        expires: str | None = None,
        ollama: str | None = None,
    ) -> dict[str, Any]:
        """Make a key; its secret is in the answer, and nowhere else."""
        said = {"name": name, "scopes": [*scopes], "user": user, "expires": expires, "ollama": ollama}
        return await self._call("POST", "keys", body={key: value for key, value in said.items() if value is not None})

    async def revoke_key(self, name: str) -> dict[str, Any]:
        """End a key, by its name or id."""
        return await self._call("DELETE", "keys", name)

    async def forget_key(self, name: str, *, dry_run: bool) -> dict[str, Any]:
        """Take a key out of the list, or say what that would open."""
        return await self._call("DELETE", "keys", name, query={"forget": "true", "dry_run": str(dry_run).lower()})

    async def _call(
        self, method: str, *path: str, query: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return await self._answer(method, self._path(*path).with_query(query), body)

    async def _answer(
        self, method: str, where: URL, body: dict[str, Any] | None = None, timeout_s: float | None = _SMALL_S
    ) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_SMALL_S)
        try:
            async with self._session.request(
                method, where, json=body, timeout=timeout, headers=self._headers()
            ) as reply:
                return await self._good(reply)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerError(f"{self.url} does not answer: {str(error) or type(error).__name__}", 0) from error

    @asynccontextmanager
    async def _lines(self, path: str, body: dict[str, Any] | None = None, **request: Any) -> AsyncIterator[Steps]:
        async with self._long(path, **(request or {"json": body})) as reply:
            yield (json.loads(line) async for line in reply.content)

    def _long(self, path: str, **request: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask for something that may take hours."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SMALL_S)
        return self._asked("POST", path, timeout, **request)

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, timeout: aiohttp.ClientTimeout, **request: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**request.pop("headers", {}), **self._headers()}
        where = self._path(*path.split("/"))
        try:
            async with self._session.request(method, where, timeout=timeout, headers=headers, **request) as reply:
                if reply.status >= 300:
                    await self._good(reply)
                yield reply
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

    def _headers(self) -> dict[str, str]:
        key = self._api_key() if callable(self._api_key) else self._api_key
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _path(self, *parts: str) -> URL:
        return self.url.joinpath("mirror", "v1", *parts)
