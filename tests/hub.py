"""A hub without a mirror around it, and heartbeats to tell it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from mirror.config import HubSettings
from mirror.db import open_database
from mirror.hub import Heartbeat, HubFace, Jobs, Node, Nodes, parse_heartbeat
from tests.access import Clock
from tests.behind import lines_of
from tests.support import Machine, machine

SEED = {
    "node_id": "ollama-node-1",
    "ipv4": "172.19.0.2",
    "ipv6": None,
    "port": 8001,
    "models": ["llama3", "mistral"],
    "metadata": {"hostname": "node1"},
    "load": {"cpu": 0.25, "memory": 0.45},
}
"""The heartbeat of an older hub's node."""


def heartbeat(node_id: str = "ollama-node-1", **others: Any) -> Heartbeat:
    """One that is right."""
    return parse_heartbeat({**SEED, "node_id": node_id, **others})


@dataclass
class Told:
    """What a pool is told: the nodes as it knows them, and every id in order."""

    nodes: dict[str, Node] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def __call__(self, id_: str, node: Node | None) -> None:
        """Take note."""
        self.ids.append(id_)
        if node is None:
            self.nodes.pop(id_, None)
        else:
            self.nodes[id_] = node


@dataclass
class Life:
    """One life of a hub's nodes."""

    nodes: Nodes
    engine: AsyncEngine
    clock: Clock
    told: Told


@asynccontextmanager
async def life(folder: Path, clock: Clock | None = None, *, most: int = 10_000, **said: Any) -> AsyncIterator[Life]:
    """The nodes on a database in ``folder``, loaded; nothing is written unless the block writes it."""
    clock, told = clock or Clock(), Told()
    engine = await open_database(None, folder / "hub.db")
    nodes = Nodes(engine, HubSettings(**said), max_failures=3, changed=told, now=clock.instant, most=most)
    try:
        await nodes.load()
        yield Life(nodes, engine, clock, told)
    finally:
        await engine.dispose()


@asynccontextmanager
async def served(face: HubFace, port: int = 0) -> AsyncIterator[Machine]:
    """A client of the face, which is served alone."""
    app = web.Application()
    app.add_routes(face.routes())
    async with serving_app(app, port) as url, machine(url) as client:
        yield client


@asynccontextmanager
async def serving_app(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serve any application on 127.0.0.1; yields its URL."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def hub(
    folder: Path, *, jobs: Jobs | None = None, token: str | None = None, port: int = 0
) -> AsyncIterator[tuple[Machine, Life]]:
    """A hub that serves, with a clock that stands; a client of it and its nodes."""
    async with life(folder) as one, served(HubFace(one.nodes, jobs, token), port) as client:
        yield client, one


async def all_of(answer: aiohttp.ClientResponse) -> tuple[list[dict[str, Any]], bool]:
    """Every line of an answer, and whether it broke off."""
    found: list[dict[str, Any]] = []
    try:
        async for line in lines_of(answer):
            found.append(line)  # noqa: PERF401  # what came before the end is kept
    except aiohttp.ClientError:
        return found, True
    return found, False
