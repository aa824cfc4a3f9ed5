"""The hub, built on one screen: nodes that send heartbeats become members of the pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from mirror.config import HubSettings, Settings
from mirror.dispatch import Member, Pool, model_key
from mirror.hub import Node, Nodes, Status, Work
from mirror.hub.nearby import NoMulticast, announced
from mirror.listen.names import is_loopback, own_addresses
from mirror.ollama import Backend

log = structlog.get_logger(__name__)


@asynccontextmanager
async def opened_nodes(settings: Settings, engine: AsyncEngine, pool: Pool, pseudonym: str) -> AsyncIterator[Nodes]:
    """Know the nodes of an earlier life, and keep the pool as the nodes are."""
    nodes = Nodes(engine, settings.hub, max_failures=settings.dispatch.max_failures)
    members = _Members(settings, pool, nodes, pseudonym)
    nodes.changed, nodes.work = members.changed, members.work
    await nodes.load()
    try:
        yield nodes
    finally:
        await nodes.flush(everything=True)
        await members.close()


@asynccontextmanager
async def announcing(settings: HubSettings, port: int) -> AsyncIterator[None]:
    """Tell the network where the hub is, where the settings want that; a network that cannot be told is no failure."""
    async with AsyncExitStack() as stack:
        if settings.announce:
            addresses = await asyncio.to_thread(_addresses)
            try:
                await stack.enter_async_context(announced(port, addresses))
            except NoMulticast as error:
                log.warning("hub not announced", problem=str(error))
        yield


def _addresses() -> list[str]:
    """Return the addresses by which others reach this machine, or its own where there are none."""
    return sorted(one for one in own_addresses() if not is_loopback(one)) or ["127.0.0.1"]


class _Members:
    """Turns nodes into members of a pool. Connections of a node that has gone are there for the next that comes."""

    def __init__(self, settings: Settings, pool: Pool, nodes: Nodes, pseudonym: str) -> None:
        self._settings = settings
        self._pseudonym = pseudonym
        self._pool = pool
        self._nodes = nodes
        self._backends: list[Backend] = []
        self._gone: dict[str, Member] = {}

    async def close(self) -> None:
        """End every connection."""
        for backend in self._backends:
            await backend.close()

    def changed(self, id_: str, node: Node | None) -> None:
        """A node is new, is another than before, or has gone."""
        member = self._pool.get(id_)
        if member is not None and not member.node:
            return  # a node may not take the name of an Ollama of the settings
        if node is None:
            if member is not None:
                self._gone[id_] = member
            self._pool.remove(id_)
            return
        if member is None:
            member = self._newcomer(id_)
        member.backend.url = node.url
        said = node.said
        member.slots = said.slots or self._settings.dispatch.slots
        member.weight = said.weight or 1.0
        member.relays = said.api
        member.models = frozenset(map(model_key, said.models))
        member.loaded = frozenset(map(model_key, said.loaded))
        member.cpu = said.cpu
        member.draining = node.draining
        member.online = self._nodes.status(node) is not Status.OFFLINE
        member.lost = False
        self._pool.put(member)

    def work(self, id_: str) -> Work:
        """Return what a node does."""
        member = self._pool.get(id_)
        return Work(member.active, member.failures) if member is not None else Work()

    def _newcomer(self, id_: str) -> Member:
        """Return the member for a node; one that comes back while it still works has that many slots fewer."""
        known = self._gone.get(id_)
        if known is None or not known.active:
            return Member(id=id_, backend=self._backend(), node=True)
        del self._gone[id_]
        known.failures, known.problem = 0, None
        return known

    def _backend(self) -> Backend:
        idle = next((one.id for one in self._gone.values() if not one.active), None)
        if idle is not None:
            return self._gone.pop(idle).backend
        token = self._settings.hub.token
        bearer = token.get_secret_value() if token else None
        made = Backend("", self._settings.proxy.connect_timeout, bearer, self._pseudonym)
        self._backends.append(made)
        return made
