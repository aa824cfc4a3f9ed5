"""Which mirror a command works on: a running one, or the store itself while nobody holds it.

Rooms are imported where they are needed: a command that only asks a running mirror starts in half the time.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from mirror.config import LogLevel, Settings, server_url
from mirror.config.aliases import VARIABLES
from mirror.errors import ServerError
from mirror.store import holder

if TYPE_CHECKING:
    from mirror.client import AdminClient

Steps = AsyncIterator[dict[str, Any]]


class Reached(Protocol):
    """A mirror that answers commands. Objects are those of the admin API; see AdminClient for what is raised."""

    async def models(self) -> list[dict[str, Any]]:
        """List the models in the store."""

    async def model(self, name: str) -> dict[str, Any]:
        """Show one model."""

    async def remove(self, name: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Take a model out of the store, or say what that would free."""

    def pull(self, name: str) -> AbstractAsyncContextManager[Steps]:
        """Fetch a model; yields steps of progress."""

    def outdated(self, names: Sequence[str]) -> AbstractAsyncContextManager[Steps]:
        """Ask which models are older than what is upstream; yields one step each, and how many at the end."""

    async def earlier(self, name: str) -> list[dict[str, Any]]:
        """List what a tag meant before, the latest first."""

    def rollback(self, name: str, to: str | None) -> AbstractAsyncContextManager[Steps]:
        """Put a tag back to an earlier manifest, and hold it there; yields steps of progress."""

    async def release(self, name: str) -> dict[str, Any]:
        """Let a tag move with its upstream again."""

    async def queue(self) -> dict[str, Any]:
        """Show the queue of pulls, and when windows open."""

    async def queue_history(self, most: int) -> dict[str, Any]:
        """Show jobs that are over."""

    async def queue_add(self, name: str, *, priority: int, at_once: bool) -> dict[str, Any]:
        """Want a model."""

    async def queue_act(self, action: str, job: str = "", position: int | None = None) -> dict[str, Any]:
        """Put the queue in order: cancel, move, now, pause, resume, retry or run."""

    def verify(self) -> AbstractAsyncContextManager[Steps]:
        """Check the store; yields steps of progress and problems."""

    async def usage(self) -> dict[str, Any]:
        """Say what the store takes, of what it may."""

    def gc(self, *, dry_run: bool) -> AbstractAsyncContextManager[Steps]:
        """Tidy up; yields what goes, and at the end what it comes to."""

    async def clear(self, *, dry_run: bool) -> dict[str, Any]:
        """Remove everything that is not pinned or in use."""

    def scrub(self, rate: int | None, *, repair: bool) -> AbstractAsyncContextManager[Steps]:
        """Hash every blob again, at most ``rate`` bytes per second; yields progress and what is damaged."""

    def repair(self) -> AbstractAsyncContextManager[Steps]:
        """Fetch again what damaged models lack; yields progress and how each ended."""

    async def pins(self) -> dict[str, Any]:
        """List the patterns that pin models."""

    async def pin(self, pattern: str) -> dict[str, Any]:
        """Pin the models that a pattern matches."""

    async def unpin(self, pattern: str) -> dict[str, Any]:
        """Take back a pin."""

    async def describe_bundle(self, names: Sequence[str], since: Sequence[str]) -> dict[str, Any]:
        """Say what a bundle of these models holds, without the blobs whose digests are in ``since``."""

    def bundle(self, names: Sequence[str], since: Sequence[str], start: int) -> AsyncGenerator[bytes, None]:
        """Yield the tar of a bundle from byte ``start`` on."""

    def import_tar(self, chunks: AsyncIterator[bytes], size: int | None) -> AbstractAsyncContextManager[Steps]:
        """Take in the models of a tar; yields how many of its bytes were read, and at the end what came in."""

    def import_folder(self, folder: str, names: Sequence[str] | None) -> AbstractAsyncContextManager[Steps]:
        """Take in models of a folder on the mirror's machine; yields progress, and at the end what came in."""


def checked(server: str) -> str:
    """Return the URL of --server as it is compared and called. Raises SettingsError where it is none."""
    return server_url({"OLLAMA_MIRROR_SERVER": server}) or server


@asynccontextmanager
async def reached(settings: Settings, server: str | None, command: str, *, create: bool) -> AsyncIterator[Reached]:
    """Yield the mirror at ``server``; else the one that holds the store; else the store itself.

    Raises:
        StoreBusy: another command holds the store.
        StoreUnusable: there is none, and ``create`` is false.
    """
    from mirror.client import AdminClient

    busy = None if server else holder(settings.cache.state_directory / "lock")
    if busy is not None and busy.url is None:
        raise busy
    url = checked(server) if server else busy.url if busy else None
    if url:
        async with AdminClient(url, shown(settings, url if server else None)) as client:
            yield client
        return
    from mirror.app import opened_parts
    from mirror.app.logs import set_up_logs
    from mirror.cli.local import Local

    set_up_logs(settings.logging.model_copy(update={"level": LogLevel.WARNING, "file": None}))
    async with opened_parts(settings, holder=f"mirror {command}", create=create) as parts:
        yield Local(parts)


@asynccontextmanager
async def serving(settings: Settings, server: str | None) -> AsyncIterator["AdminClient"]:
    """Yield the mirror at ``server``, else the one that serves from the store. Raises ServerError: there is none."""
    from mirror.client import AdminClient

    busy = None if server else holder(settings.cache.state_directory / "lock")
    url = checked(server) if server else busy.url if busy is not None else None
    if url is None:
        raise ServerError("no mirror serves here; mirror serve starts one, --server names another", 0)
    async with AdminClient(url, shown(settings, url if server else None)) as client:
        yield client


@asynccontextmanager
async def keys_of(settings: Settings, server: str) -> AsyncIterator["AdminClient"]:
    """Yield the running mirror at ``server``, whose keys are to be looked at or changed."""
    from mirror.client import AdminClient

    async with AdminClient(checked(server), shown(settings, checked(server))) as client:
        yield client


def shown(settings: Settings, named: str | None) -> Callable[[], str] | str | None:
    """Return what a command shows a running mirror: a key, else that it is on the same machine.

    ``named`` is the URL of --server, None for the mirror of this machine's store. What proves that one is on the same
    machine is shown to no mirror that was named, for a minute it would be good in anybody's hands; nor is the key of
    this mirror's settings, unless it is this mirror that was named. A key in the environment is there to be shown.
    """
    key = settings.security.api_key
    if key is not None and (named is None or _is_in_environment() or _is_this_mirror(settings, named)):
        return key.get_secret_value()
    if named is not None:
        return None
    from mirror.access import Seal

    seal = Seal.of_commands(settings.cache.state_directory.absolute())
    return seal.local_token if seal is not None else None


def _is_in_environment() -> bool:
    names = [name for name, alias in VARIABLES.items() if alias.key == "security.api_key"]
    return any(os.environ.get(name) or os.environ.get(f"{name}_FILE") for name in names)


def _is_this_mirror(settings: Settings, named: str) -> bool:
    """Whether a URL is that of the mirror whose settings these are: ``server.public_url``, or its port right here."""
    if settings.server.public_url is not None and _place(named) == _place(settings.server.public_url):
        return True
    hosts = {"localhost", "127.0.0.1", "::1", settings.server.host}
    return any(_place(named) == ("http", host, settings.server.port) for host in hosts)


def _place(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
