"""All nodes of a hub: in memory, and in the database for the next life of it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mirror.config import HubSettings
from mirror.db import in_transaction, write_or_put_back
from mirror.db.instants import aware
from mirror.db.tables import nodes as table
from mirror.errors import MirrorError
from mirror.hub.node import Heartbeat, Node, Status, parse_heartbeat
from mirror.values import Invalid

log = structlog.get_logger(__name__)

MOST_NODES = 10_000
_LOOK_S = 1.0
_FLUSH_S = 10.0
_OLD_S = 60.0
"""Rows in which nothing but the last heartbeat is out of date are written so seldom."""


class NoSuchNode(MirrorError):
    """Nothing is known of a node of that name."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"no node {id_[:200]!r} is registered")


class TooManyNodes(MirrorError):
    """As many nodes are known as may be, and none of them is offline."""

    permanent = False

    def __init__(self) -> None:
        super().__init__(f"{MOST_NODES} nodes are registered already")


@dataclass(frozen=True, slots=True)
class Work:
    """What a node does: jobs that run there, and failures in a row."""

    active: int = 0
    failures: int = 0


Changed = Callable[[str, Node | None], None]
"""Told of a node by its id: what it is now, or None once nothing is known of it any more."""


class Nodes:
    """The nodes. For the event loop's thread; ``load`` first, ``run`` once, ``flush(everything=True)`` at the end.

    ``changed`` is told of each node at every heartbeat, when it is drained or enabled, when it goes offline and when it
    is forgotten; at ``load`` of those that are known. It must be quick and must not raise. ``work`` says what a node
    does; both may be set later. A database that cannot be written is tried again: it costs what the next life knows.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        settings: HubSettings,
        *,
        max_failures: int,
        changed: Changed = lambda _id, _node: None,
        work: Callable[[str], Work] = lambda _: Work(),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        most: int = MOST_NODES,
    ) -> None:
        self.changed = changed
        self.work = work
        self._engine = engine
        self._settings = settings
        self._max_failures = max_failures
        self._now = now
        self._most = most
        self._known: dict[str, Node] = {}
        self._offline: set[str] = set()
        self._unwritten: set[str] = set()
        self._written_at: dict[str, datetime] = {}
        self._writing = asyncio.Lock()

    def __iter__(self) -> Iterator[Node]:
        """Every node with the work it has now, by id."""
        return iter([self._working(self._known[id_]) for id_ in sorted(self._known)])

    def __len__(self) -> int:
        return len(self._known)

    def get(self, id_: str) -> Node | None:
        """Return a node with the work it has now."""
        found = self._known.get(id_)
        return self._working(found) if found is not None else None

    def status(self, node: Node) -> Status:
        """Return what a node is now."""
        return node.status(self._now(), self._settings.heartbeat_ttl, self._max_failures)

    def beat(self, heartbeat: Heartbeat, came_from: str) -> Node:
        """Take a heartbeat that came from an address; return the node. Raises TooManyNodes."""
        id_, former = heartbeat.node_id, self._known.get(heartbeat.node_id)
        if former is None and len(self._known) >= self._most:
            self._make_room()
        node = Node(
            said=heartbeat,
            address=heartbeat.address(came_from),
            last_seen=self._now(),
            draining=former is not None and former.draining,
        )
        if former is None or id_ in self._offline:
            log.info("node online", id=id_, url=node.url, models=len(heartbeat.models))
        if former is None or _lasting(former) != _lasting(node):
            self._unwritten.add(id_)
        self._offline.discard(id_)
        self._known[id_] = node
        self.changed(id_, node)
        return self._working(node)

    def drain(self, id_: str) -> Node:
        """Let a node finish what it does, and get nothing more, until it is enabled. Raises NoSuchNode."""
        return self._drained(id_, draining=True)

    def enable(self, id_: str) -> Node:
        """Let a node get work again. Raises NoSuchNode."""
        return self._drained(id_, draining=False)

    def remove(self, id_: str) -> None:
        """Forget a node; its next heartbeat makes it known again. Raises NoSuchNode."""
        if id_ not in self._known:
            raise NoSuchNode(id_)
        self._forget(id_)

    def look(self) -> None:
        """See who has gone offline, and forget those of whom nothing was heard for too long."""
        now = self._now()
        for id_, known in list(self._known.items()):
            node = known
            if known.last_seen > now:  # the clock was set back
                node = self._known[id_] = replace(known, last_seen=now)
            if node.forgotten(now, self._settings.heartbeat_offline):
                log.info("node forgotten", id=id_)
                self._forget(id_)
            elif id_ not in self._offline and self.status(node) is Status.OFFLINE:
                self._offline.add(id_)
                log.info("node offline", id=id_, last_seen=node.last_seen.isoformat())
                self.changed(id_, node)

    async def run(self) -> None:
        """Look every second, and write every ten what there is to write, until cancelled."""
        looks = 0
        while True:
            self.look()
            looks += 1
            if looks * _LOOK_S >= _FLUSH_S:
                looks = 0
                await self.flush()
            await asyncio.sleep(_LOOK_S)

    async def load(self) -> None:
        """Read what an earlier life knew, as it was; rows that cannot be read are left out."""

        async def read(connection: AsyncConnection) -> None:
            query = select(table).order_by(table.c.seen_at.desc()).limit(self._most)
            for row in await connection.execute(query):
                try:
                    said = parse_heartbeat(json.loads(row.said))
                except (Invalid, ValueError, RecursionError):
                    continue
                seen_at = aware(row.seen_at)
                self._known[said.node_id] = Node(
                    said=said, address=row.address, last_seen=seen_at, draining=bool(row.draining)
                )
                self._written_at[said.node_id] = seen_at

        await in_transaction(self._engine, read)
        self.look()
        for id_, node in self._known.items():
            self.changed(id_, node)

    async def flush(self, *, everything: bool = False) -> None:
        """Write in one go what changed since the last time; of heartbeats alone once a minute, or ``everything``."""
        async with self._writing:
            old = [id_ for id_ in self._known if id_ not in self._unwritten and (everything or self._is_old(id_))]
            changed, self._unwritten = self._unwritten.union(old), set()
            if not changed:
                return
            kept = [self._known[id_] for id_ in changed if id_ in self._known]
            rows = [_row(one) for one in kept]

            async def write(connection: AsyncConnection) -> None:
                gone = delete(table).where(table.c.id == bindparam("key"))
                await connection.execute(gone, [{"key": id_} for id_ in changed])
                if rows:
                    await connection.execute(insert(table), rows)

            if await write_or_put_back(self._engine, write, lambda: self._unwritten.update(changed), "nodes"):
                self._written_at |= {one.id: one.last_seen for one in kept if one.id in self._known}

    def _is_old(self, id_: str) -> bool:
        written_at = self._written_at.get(id_)
        return written_at is None or (self._known[id_].last_seen - written_at).total_seconds() >= _OLD_S

    def _working(self, node: Node) -> Node:
        work = self.work(node.id)
        return replace(node, active_jobs=work.active, failure_count=work.failures)

    def _drained(self, id_: str, *, draining: bool) -> Node:
        node = self._known.get(id_)
        if node is None:
            raise NoSuchNode(id_)
        if node.draining != draining:
            node = self._known[id_] = replace(node, draining=draining)
            self._unwritten.add(id_)
            log.info("node draining" if draining else "node enabled", id=id_)
            self.changed(id_, node)
        return self._working(node)

    def _make_room(self) -> None:
        """Forget the one that has been offline for longest. Raises TooManyNodes where none is."""
        idle = [self._known[id_] for id_ in self._offline if not self._known[id_].draining]
        if not idle:
            raise TooManyNodes
        self._forget(min(idle, key=lambda one: one.last_seen).id)

    def _forget(self, id_: str) -> None:
        del self._known[id_]
        self._offline.discard(id_)
        self._written_at.pop(id_, None)
        self._unwritten.add(id_)
        self.changed(id_, None)


def _lasting(node: Node) -> tuple[object, ...]:
    """Return what of a node is worth writing at once: not its load, which is another each time."""
    said = replace(node.said, cpu=None, memory=None, loaded=(), metadata={})
    return said, node.address, node.draining


def _row(node: Node) -> dict[str, object]:
    return {
        "id": node.id,
        "said": json.dumps(node.said.body()),
        "address": node.address,
        "seen_at": node.last_seen,
        "draining": int(node.draining),
    }
