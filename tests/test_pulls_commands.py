"""``mirror pulls`` and ``/mirror/v1/queue``, with a mirror that serves and on a store that nobody holds."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mirror.access import Keyring, Scope
from mirror.values import Digest
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.process import Ended, mirror, serving
from tests.support import Machine, add_blob, blob_path, eventually, machine, mirrored

NEVER: dict[str, Any] = {"pulls__windows": []}


async def pulls(*arguments: str, store: Path | None = None, url: str | None = None) -> Ended:
    """Run ``mirror pulls``."""
    where = ["--store", str(store)] if store else ["--server", str(url)]
    return await mirror("pulls", *arguments, *where, env={"OLLAMA_MIRROR_UPSTREAM_URL": "http://127.0.0.1:9"})


async def test_a_queue_before_the_first_start_is_there_at_it(tmp_path: Path) -> None:
    """The whole of it by hand: add, list, move, pause, take back, have again."""
    store = tmp_path / "store"
    added = await pulls("add", "a", "hf.co/me/b:Q4", "a", store=store)
    assert (added.code, added.err) == (0, "")
    assert added.out.splitlines() == [
        "a:latest is queued, at place 1",
        "hf.co/me/b:Q4 is queued, at place 2",
        "a:latest is queued already, at place 1",
    ]
    moved = await pulls("move", "hf.co/me/b:Q4", "1", store=store)
    assert moved.out == "hf.co/me/b:Q4 is at place 1\n"
    assert "the queue is paused" in (await pulls("pause", store=store)).out
    assert "the queue is paused" in (await pulls("list", store=store)).out
    assert " in " in (await pulls("resume", store=store)).out
    assert (await pulls("cancel", "a", store=store)).out == "a:latest is not wanted any more\n"
    listed = json.loads((await pulls("list", "--json", store=store)).out)
    assert [job["name"] for job in listed["jobs"]] == ["hf.co/me/b:Q4"]
    assert listed["counts"]["cancelled"] == 1
    assert "a:latest" in (await pulls("history", store=store)).out
    assert (await pulls("retry", "a", store=store)).out == "a:latest is tried again\n"
    gone = await pulls("cancel", "nothing", store=store)
    assert (gone.code, "nothing:latest is not queued" in gone.err) == (1, True)
    wrong = await pulls("add", "no such name", store=store)
    assert (wrong.code, "invalid model name" in wrong.err) == (2, True)


async def test_now_and_run_wait_for_no_window(tmp_path: Path) -> None:
    """Fetched by the mirror that serves; the history says so, and a failure says why."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER) as (running, _):
        for name in ("a", "b", "c"):
            add_blob(fake, 1000, f"library/{name}:latest")
        for name in ("a", "b", "c", "gone"):
            assert (await pulls("add", name, url=running.url)).code == 0
        assert "no window ever opens" in (await pulls("list", url=running.url)).out
        assert not fake.log
        assert (await pulls("now", "b", url=running.url)).code == 0
        await eventually(partial(state_of, running.url, "b:latest", "completed"))
        assert {entry.path.split("/")[3] for entry in fake.asked("manifest")} == {"b"}
        assert (await pulls("run", url=running.url)).code == 0
        for name, state in (("a", "completed"), ("c", "completed"), ("gone", "failed")):
            await eventually(partial(state_of, running.url, f"{name}:latest", state))
        assert "not found upstream" in (await pulls("history", url=running.url)).out


async def state_of(url: str, name: str, state: str) -> bool:
    """Whether the last job of a model has ended like that."""
    done = json.loads((await pulls("history", "--json", url=url)).out)["jobs"]
    return any(job["name"] == name and job["state"] == state for job in done)


async def post(client: Machine, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """Call the admin API."""
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.session.post(client.url(path), json=body, headers=shown) as reply:
        return reply.status, json.loads(await reply.text())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"name": "a", "model": "a"}, 400),
        ({"name": "a", "at_once": True}, 400),
        ({"name": "a b"}, 400),
        ({"name": 5}, 400),
        (["a"], 400),
        ({"name": "blocked"}, 403),
        ({"name": "a"}, 202),
    ],
)
async def test_what_may_be_asked(body: Any, status: int, tmp_path: Path) -> None:
    """What is wrong leaves nothing in the queue."""
    said = {**NEVER, "security__blocked_models": ["blocked"]}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **said) as (running, client):
        assert (await post(client, "/mirror/v1/queue", body))[0] == status
        assert len(running.parts.queue.jobs) == (status == 202)


async def test_a_full_queue_says_so(tmp_path: Path) -> None:
    """429, and who asks for what is queued is still joined to it."""
    said = {**NEVER, "pulls__max_queued": 1}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **said) as (_, client):
        assert (await post(client, "/mirror/v1/queue", {"name": "a"}))[0] == 202
        status, answer = await post(client, "/mirror/v1/queue", {"name": "b"})
        assert (status, "pulls.max_queued is 1" in answer["detail"]) == (429, True)
        assert (await post(client, "/mirror/v1/queue", {"name": "A:latest"}))[0] == 200


async def test_who_may_pull_may_ask_and_admins_put_it_in_order(tmp_path: Path) -> None:
    """The one who asked is known by the user of the key."""
    (tmp_path / "state").mkdir()
    keyring = Keyring(tmp_path / "state")
    puller, admin = (keyring.add(scope.value, [scope])[1] for scope in (Scope.PULL, Scope.ADMIN))
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER) as (_, client):
        assert (await post(client, "/mirror/v1/queue", {"name": "a"}))[0] == 401
        bearer = {"Authorization": f"Bearer {puller}"}
        status, answer = await post(client, "/mirror/v1/queue", {"name": "a"}, **bearer)
        assert (status, answer["job"]["requesters"]) == (202, ["pull"])
        now = {"name": "b", "at_once": True, "priority": 5}
        for path, body in (("/mirror/v1/queue/add", now), ("/mirror/v1/queue/cancel", {"job": "a"})):
            assert (await post(client, path, body, **bearer))[0] == 403
            assert (await post(client, path, body, Authorization=f"Bearer {admin}"))[0] in (200, 202)
        for body in ({}, {"job": ""}, {"job": "a", "position": 0}):
            assert (await post(client, "/mirror/v1/queue/move", body, Authorization=f"Bearer {admin}"))[0] in (400, 404)


async def test_a_job_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Nobody asks for it again: the next process finds it in the queue, and its bytes beside the store."""
    store, always = tmp_path / "store", {"OLLAMA_MIRROR_PULLS_WINDOWS": "00:00-24:00"}
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, 3_000_000)
        fake.hold(digest, offset=2_000_000)
        async with serving(store, fake.url, env=always) as (url, process):
            assert (await pulls("add", "m", url=url)).code == 0
            await eventually(partial(sent, fake, digest, 2_000_000))
            process.kill()
            await process.wait()
        fake.release(digest)
        async with serving(store, fake.url, env=always) as (url, _):
            await eventually(partial(state_of, url, "m:latest", "completed"))
            async with machine(url) as client:
                assert (await client.get(blob_path(digest))).body == content


async def sent(fake: FakeRegistry, digest: Digest, count: int) -> bool:
    """Whether so many bytes of a blob have gone out."""
    return fake.blob_bytes_sent(digest) >= count
