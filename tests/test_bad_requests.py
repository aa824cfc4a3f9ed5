"""Requests of the admin API that nobody means: each is refused by a problem, and nothing has happened."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.behind import asked, closed
from tests.fakes.registry import running_fake_registry
from tests.support import mirrored

NEVER: dict[str, Any] = {"pulls__windows": []}
MOVE = "/mirror/v1/queue/move"


@pytest.mark.parametrize("priority", [10**30, -(10**30), 1001, "1e300", "true"])
async def test_a_priority_that_no_database_holds_is_refused(priority: int | str, tmp_path: Path) -> None:
    """It was an error of the server, or, being true, taken for a 1."""
    body = f'{{"name": "m", "priority": {priority}}}'.encode()
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER) as (running, client):
        status, said = await asked(client, "/mirror/v1/queue/add", body)
        assert (status, json.loads(said)["status"], running.parts.queue.jobs) == (400, 400, [])


async def test_a_place_in_the_queue_is_a_number(tmp_path: Path) -> None:
    """True is none; 2.0 is one, for JSON has no other way to tell them apart."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER) as (_, client):
        for name in ("a", "b"):
            await asked(client, "/mirror/v1/queue", {"name": name})
        assert (await asked(client, MOVE, {"job": "b", "position": True}))[0] == 400
        assert (await asked(client, MOVE, b'{"job": "b", "position": 1.5}'))[0] == 400
        status, said = await asked(client, MOVE, b'{"job": "b", "position": 1.0}')
        assert (status, said["job"]["position"]) == (200, 1)


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("cancel", {"job": "m", "position": 1}),
        ("pause", {"job": "m"}),
        ("resume", {"position": 1}),
        ("run", {"job": "m"}),
    ],
)
async def test_an_action_takes_what_it_is_about_alone(action: str, body: dict[str, Any], tmp_path: Path) -> None:
    """Who says run of one job would have had all of them run."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **closed()) as (running, client):
        await asked(client, "/mirror/v1/queue", {"name": "m"})
        assert (await asked(client, f"/mirror/v1/queue/{action}", body))[0] == 400
        [job] = running.parts.queue.jobs
        assert (job.at_once, running.parts.queue.paused) == (False, False)


async def test_a_body_that_is_too_large_is_a_problem(tmp_path: Path) -> None:
    """It was plain text, where programs read JSON."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        url, body = client.url("/mirror/v1/store/gc"), b" " * (2 << 20)
        async with client.session.post(
            url, data=io.BytesIO(body), headers={"Content-Type": "application/json"}
        ) as answer:
            assert (answer.status, answer.content_type) == (413, "application/problem+json")
            assert json.loads(await answer.read())["status"] == 413
