"""The nodes of a hub: in memory, through time, and in the database for the next life."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from mirror.hub import NoSuchNode, Status, TooManyNodes, Work
from tests.access import Clock
from tests.hub import heartbeat, life


def rows(folder: Path) -> list[tuple[str, int]]:
    """What is written."""
    with sqlite3.connect(folder / "hub.db") as connection:
        found = connection.execute("SELECT id, draining FROM nodes ORDER BY id").fetchall()
    connection.close()
    return found


def writes(engine: AsyncEngine) -> list[str]:
    """The statements from now on that change something."""
    found: list[str] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(_c: object, _cursor: object, statement: str, _p: object, _context: object, _many: object) -> None:
        found.append(statement.split(maxsplit=1)[0])

    return found


async def test_a_node_goes_offline_and_is_forgotten(tmp_path: Path) -> None:
    """90 and 180 seconds after its last heartbeat, as hubs before did it; the pool is told of both."""
    async with life(tmp_path) as one:
        node = one.nodes.beat(heartbeat(), "10.0.0.9")
        for after, status in ((90, Status.ONLINE), (1, Status.OFFLINE)):
            one.clock.at += after
            one.nodes.look()
            assert one.nodes.status(node) is status
        assert one.told.ids == ["ollama-node-1"] * 2
        one.nodes.look()
        assert len(one.told.ids) == 2, "it is told once"
        one.clock.at += 90
        one.nodes.look()
        assert (list(one.nodes), one.told.nodes) == ([], {})
        one.nodes.beat(heartbeat(), "10.0.0.9")
        assert [found.id for found in one.nodes] == ["ollama-node-1"]


async def test_every_heartbeat_is_told(tmp_path: Path) -> None:
    """A pool that could not reach a node knows by it that the node is back, though it is what it was."""
    async with life(tmp_path) as one:
        for _ in range(3):
            one.nodes.beat(heartbeat(), "10.0.0.9")
        assert one.told.ids == ["ollama-node-1"] * 3


async def test_work_is_what_the_pool_says_now(tmp_path: Path) -> None:
    """Active jobs and failures are the pool's; the hub shows them, and degraded with them."""
    async with life(tmp_path) as one:
        one.nodes.work = {"a": Work(2, 1), "b": Work(0, 3)}.__getitem__
        one.nodes.beat(heartbeat("a"), "10.0.0.9")
        one.nodes.beat(heartbeat("b"), "10.0.0.9")
        a, b = one.nodes
        assert (a.active_jobs, a.failure_count, one.nodes.status(a)) == (2, 1, Status.ONLINE)
        assert one.nodes.status(b) is Status.DEGRADED


async def test_the_next_life_knows_them_as_they_were(tmp_path: Path) -> None:
    """Also that one is drained; who was quiet for too long is offline until it is heard of again."""
    clock = Clock()
    async with life(tmp_path, clock) as one:
        one.nodes.beat(heartbeat("old", ipv4="10.0.0.1"), "10.0.0.1")
        clock.at += 100
        one.nodes.beat(heartbeat("new", models=["m"], loaded=["m"], slots=4, api=True), "10.0.0.2")
        one.nodes.drain("new")
        before = list(one.nodes)
        await one.nodes.flush(everything=True)
    async with life(tmp_path, clock) as one:
        assert list(one.nodes) == before
        new, old = before
        assert (one.nodes.status(new), one.nodes.status(old)) == (Status.ONLINE, Status.OFFLINE)
        assert one.told.nodes == {"new": new, "old": old}
        clock.at += 200
        one.nodes.look()
        assert [found.id for found in one.nodes] == ["new"], "a drained node is remembered"
        await one.nodes.flush()
        assert rows(tmp_path) == [("new", 1)]
        one.nodes.enable("new")
        one.nodes.look()
        await one.nodes.flush()
        assert rows(tmp_path) == []


async def test_heartbeats_that_say_nothing_new_are_written_once_a_minute_all_together(tmp_path: Path) -> None:
    """A thousand nodes must not be two thousand writes a minute, and yet the next life must know who is alive."""
    async with life(tmp_path) as one:

        async def told(models: list[str], cpu: float) -> list[str]:
            for number in range(1000):
                one.nodes.beat(heartbeat(f"n{number}", models=models, load={"cpu": cpu}), "10.0.0.9")
            statements = writes(one.engine)
            await one.nodes.flush()
            return statements

        assert await told(["m"], 0.1) == ["DELETE", "INSERT"], "all at once"
        for seconds, cpu, expected in ((30, 0.2, []), (29, 0.3, []), (1, 0.4, ["DELETE", "INSERT"])):
            one.clock.at += seconds
            assert await told(["m"], cpu) == expected
        assert await told(["m", "n"], 0.4) == ["DELETE", "INSERT"], "other models are worth it"
        assert len(rows(tmp_path)) == 1000


async def test_a_database_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    """It costs nothing but what the next life would know."""
    async with life(tmp_path) as one:
        one.nodes.beat(heartbeat(), "10.0.0.9")
        with sqlite3.connect(tmp_path / "hub.db") as other:
            other.execute("ALTER TABLE nodes RENAME TO elsewhere")
        await one.nodes.flush()
        with other:
            other.execute("ALTER TABLE elsewhere RENAME TO nodes")
        assert rows(tmp_path) == []
        await one.nodes.flush()
        assert rows(tmp_path) == [("ollama-node-1", 0)]
        one.nodes.remove("ollama-node-1")
        with other:
            other.execute("ALTER TABLE nodes RENAME TO elsewhere")
        await one.nodes.flush()
        with other:
            other.execute("ALTER TABLE elsewhere RENAME TO nodes")
        other.close()
        await one.nodes.flush()
        assert rows(tmp_path) == [], "a node that was removed does not come back"


@pytest.mark.parametrize("said", ["", "[]", "{", '{"node_id": "a b", "port": 1}', "[" * 9999])
async def test_rows_that_cannot_be_read_are_left_out(tmp_path: Path, said: str) -> None:
    """A database edited by hand, or by another version, must not keep the hub from starting."""
    async with life(tmp_path) as one:
        one.nodes.beat(heartbeat("good"), "10.0.0.9")
        one.nodes.beat(heartbeat("bad"), "10.0.0.9")
        await one.nodes.flush()
    with sqlite3.connect(tmp_path / "hub.db") as other:
        other.execute("UPDATE nodes SET said = ? WHERE id = 'bad'", (said,))
    other.close()
    async with life(tmp_path) as one:
        assert [node.id for node in one.nodes] == ["good"]


async def test_a_clock_that_is_set_back_makes_nobody_immortal(tmp_path: Path) -> None:
    """A node that was last seen tomorrow would be online for a day."""
    async with life(tmp_path) as one:
        node = one.nodes.beat(heartbeat(), "10.0.0.9")
        one.clock.at -= 86_400
        one.nodes.look()
        one.clock.at += 91
        one.nodes.look()
        assert one.nodes.status(one.nodes.get(node.id) or node) is Status.OFFLINE


async def test_as_many_as_may_be(tmp_path: Path) -> None:
    """One that is offline makes room for a new one; where all are alive the new one has to wait."""
    async with life(tmp_path, most=2) as one:
        one.nodes.beat(heartbeat("a"), "10.0.0.9")
        one.nodes.beat(heartbeat("b"), "10.0.0.9")
        with pytest.raises(TooManyNodes):
            one.nodes.beat(heartbeat("c"), "10.0.0.9")
        one.nodes.beat(heartbeat("a"), "10.0.0.9")
        one.clock.at += 91
        one.nodes.beat(heartbeat("b"), "10.0.0.9")
        one.nodes.look()
        one.nodes.beat(heartbeat("c"), "10.0.0.9")
        assert [node.id for node in one.nodes] == ["b", "c"]
        assert set(one.told.nodes) == {"b", "c"}


async def test_drained_enabled_removed(tmp_path: Path) -> None:
    """Heartbeats do not enable a node that people drain; the pool is told of each change once."""
    async with life(tmp_path) as one:
        one.nodes.beat(heartbeat(), "10.0.0.9")
        for _ in range(2):
            assert one.nodes.drain("ollama-node-1").draining
        assert one.nodes.beat(heartbeat(), "10.0.0.9").draining
        assert not one.nodes.enable("ollama-node-1").draining
        one.nodes.remove("ollama-node-1")
        assert (len(one.nodes), len(one.told.ids), one.told.nodes) == (0, 5, {})
        for act in (one.nodes.drain, one.nodes.enable, one.nodes.remove):
            with pytest.raises(NoSuchNode, match="no node 'ollama-node-1' is registered"):
                act("ollama-node-1")
