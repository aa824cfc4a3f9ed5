"""The hub's routes: heartbeats in, nodes out, errors as ``{"detail": ...}``; and what each route needs."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mirror.access import Scope
from mirror.web.needs import Special, route_of
from tests.behind import asked
from tests.hub import SEED, hub, serving_app
from tests.support import Machine, machine


async def got(client: Machine, path: str) -> tuple[int, Any]:
    """Status and JSON of a path."""
    answer = await client.get(path)
    return answer.status, json.loads(answer.body)


async def test_a_node_of_an_older_hub_is_taken_and_shown_to_the_letter(tmp_path: Path) -> None:
    """Its README is the contract: the same keys in the same order, and a time with a Z."""
    async with hub(tmp_path) as (client, one):
        one.clock.at += 0.727166
        assert await got(client, "/healthz") == (200, {"status": "ok"})
        assert await got(client, "/nodes") == (200, [])
        status, node = await asked(client, "/nodes/heartbeat", SEED)
        seed = {
            **SEED,
            "last_seen": "2027-01-15T08:00:00.727166Z",
            "status": "online",
            "active_jobs": 0,
            "failure_count": 0,
        }
        assert (status, list(node)[: len(seed)]) == (200, list(seed))
        assert {key: node[key] for key in seed} == seed
        assert await got(client, "/nodes") == (200, [node])
        assert await got(client, "/nodes/ollama-node-1") == (200, node)
        one.clock.at += 91
        one.nodes.look()
        assert (await got(client, "/nodes"))[1][0]["status"] == "offline"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "accepted is a JSON object"),
        (b"[]", "accepted is a JSON object"),
        (b"[" * 9999, "accepted is a JSON object"),
        (b"\xff\xfe", "accepted is a JSON object"),
        (b'{"port": 8001}', "invalid heartbeat 'None': accepted is a node_id"),
        (b'{"node_id": "a", "port": 8001, "models": "m"}', "models: a list of at most 2000"),
        (b'{"node_id": "a", "port": %s}' % (b"9" * 5000), "accepted is"),
    ],
)
async def test_what_is_no_heartbeat_is_a_400(tmp_path: Path, body: bytes, said: str) -> None:
    """With a sentence that says what would have been one; nothing is registered."""
    async with hub(tmp_path) as (client, one):
        status, answer = await asked(client, "/nodes/heartbeat", body)
        assert (status, list(answer), said in answer["detail"]) == (400, ["detail"], True)
        assert len(one.nodes) == 0


async def test_a_heartbeat_without_end_is_a_413(tmp_path: Path) -> None:
    """Before it is all in memory."""
    async with hub(tmp_path) as (client, _):
        status, answer = await asked(client, "/nodes/heartbeat", b" " * (3 << 20))
        assert (status, answer) == (413, {"detail": "the request has more than 2097152 bytes"})


async def test_with_a_token_strangers_are_refused(tmp_path: Path) -> None:
    """Who can register a node reads the prompts that are sent to it."""
    async with hub(tmp_path, token="gehéim") as (client, one):
        for shown in ("", "Bearer", "Bearer geheim", "Basic gehéim", "Bearer gehéim2"):
            status, answer = await asked(client, "/nodes/heartbeat", SEED, Authorization=shown)
            assert (status, list(answer)) == (401, ["detail"])
        assert len(one.nodes) == 0
        status, _ = await asked(client, "/nodes/heartbeat", SEED, Authorization="Bearer gehéim")
        assert (status, len(one.nodes)) == (200, 1)


async def test_drained_enabled_removed(tmp_path: Path) -> None:
    """And 404 with a detail for a node that nobody knows."""
    async with hub(tmp_path) as (client, _):
        await asked(client, "/nodes/heartbeat", {**SEED, "node_id": "gpu:1@lab"})
        for action, draining in (("drain", True), ("enable", False)):
            status, node = await asked(client, f"/nodes/gpu:1@lab/{action}", b"")
            assert (status, node["draining"]) == (200, draining)
        assert (await asked(client, "/nodes/gpu%3A1%40lab", b"", method="DELETE"))[0] == 204
        gone = (404, {"detail": "no node 'gpu:1@lab' is registered"})
        assert await got(client, "/nodes/gpu:1@lab") == gone
        assert await asked(client, "/nodes/gpu:1@lab", b"", method="DELETE") == gone
        for action in ("drain", "enable"):
            assert await asked(client, f"/nodes/gpu:1@lab/{action}", b"") == gone


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/healthz", Special.NOTHING),
        ("GET", "/nodes", Special.LOOKING),
        ("GET", "/nodes/a", Special.LOOKING),
        ("POST", "/nodes/heartbeat", Special.NOTHING),
        ("POST", "/jobs", Scope.API),
        ("DELETE", "/nodes/heartbeat", Scope.ADMIN),
        ("POST", "/nodes/a/drain", Scope.ADMIN),
        ("POST", "/nodes/a/enable", Scope.ADMIN),
        ("DELETE", "/nodes/a", Scope.ADMIN),
        ("POST", "/nodes/heartbeat/drain", Scope.ADMIN),
        ("POST", "/nodes", Scope.ADMIN),
    ],
)
async def test_what_each_route_needs(method: str, path: str, need: Scope | Special) -> None:
    """Heartbeats are let through to the token, which the face asks for; what changes a node is for admins."""

    async def tell(request: web.Request) -> web.Response:
        return web.Response(text=route_of(request).need.value)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", tell)
    async with serving_app(app) as url, machine(url) as client:
        assert (await client.get(path, method=method)).body.decode() == need.value
