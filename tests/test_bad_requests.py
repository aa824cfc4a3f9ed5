"""Requests that nobody means, found by schemathesis: refused in the form of their face, and nothing has happened."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from mirror.app.pages import queue_desk
from tests.behind import asked, closed
from tests.fakes.registry import running_fake_registry
from tests.support import mirrored

NEVER: dict[str, Any] = {"pulls__windows": []}
PROBLEM = "application/problem+json; charset=utf-8"
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


@pytest.mark.parametrize("path", ["nope", "models/m%0An", "queue/", "keys/a%7Bb"])
async def test_what_is_no_path_is_a_problem(path: str, tmp_path: Path) -> None:
    """It was plain text, where programs read JSON; a name with a line break is matched by no route."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        answer = await client.get(f"/mirror/v1/{path}", method="DELETE")
        assert (answer.status, answer.headers["Content-Type"]) == (404, PROBLEM)
        assert "openapi.json" in json.loads(answer.body)["detail"]


async def test_another_method_is_a_problem_that_says_which(tmp_path: Path) -> None:
    """With Allow (RFC 9110 §15.5.6)."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        answer = await client.get("/mirror/v1/store/pins", method="DELETE")
        assert (answer.status, answer.headers["Content-Type"]) == (405, PROBLEM)
        assert answer.headers["Allow"] == "GET, HEAD, POST"


async def test_a_name_with_a_line_break_is_an_error_of_registries(tmp_path: Path) -> None:
    """Below /v2 every error is one."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        answer = await client.get("/v2/library/m%0An/manifests")
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (404, "NAME_INVALID")


async def test_a_job_that_ends_while_all_are_hurried_is_no_error(tmp_path: Path) -> None:
    """Whoever asks for all of the queue has not asked for the job that has just come to an end."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER) as (running, client):
        for name in ("a", "b", "c"):
            await asked(client, "/mirror/v1/queue", {"name": name})
        queue = running.parts.queue
        second = queue.jobs[1]
        async with asyncio.TaskGroup() as group:
            hurried = group.create_task(queue_desk(running.parts).act("run", "", None))
            group.create_task(queue.cancel(second.id))
        assert second.id not in {job["id"] for job in hurried.result()["jobs"]}
