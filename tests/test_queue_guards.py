"""What the queue refuses, and the routes under which an older proxy showed it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mirror.access import Keyring, Scope
from mirror.config import load
from tests.behind import fronted
from tests.fakes.registry import running_fake_registry
from tests.support import Machine, add_blob, mirrored, until

NEVER: dict[str, Any] = {"pulls__windows": []}


async def ask(client: Machine, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Call a route; return status and JSON."""
    async with client.session.request(method, client.url(path), json=body, headers=headers) as reply:
        return reply.status, json.loads(await reply.text())


async def test_so_many_a_day_for_each_client(tmp_path: Path) -> None:
    """The sixth is refused; what one has asked for already does not count, nor does another's day, nor an admin's."""
    (tmp_path / "state").mkdir()
    keyring = Keyring(tmp_path / "state")
    one, other = (keyring.add(name, [Scope.PULL])[1] for name in ("one", "other"))
    admin = keyring.add("boss", [Scope.ADMIN])[1]
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER) as (_, client):
        for number in range(5):
            status, _ = await ask(
                client, "POST", "/mirror/v1/queue", {"name": f"m{number}"}, Authorization=f"Bearer {one}"
            )
            assert status == 202
        status, answer = await ask(client, "POST", "/mirror/v1/queue", {"name": "m5"}, Authorization=f"Bearer {one}")
        assert (status, "5 models today" in answer["detail"]) == (429, True)
        for secret, name, right in ((one, "m0", 200), (other, "m5", 202), (admin, "m6", 202)):
            status, _ = await ask(client, "POST", "/mirror/v1/queue", {"name": name}, Authorization=f"Bearer {secret}")
            assert status == right


async def test_a_full_disk_takes_and_begins_nothing(tmp_path: Path) -> None:
    """New wishes are refused with a sentence; what was queued before waits, and says why."""
    async with running_fake_registry() as fake:
        add_blob(fake, 1000)
        async with mirrored(tmp_path, fake, **NEVER) as (_, client):
            assert (await ask(client, "POST", "/mirror/v1/queue", {"name": "m"}))[0] == 202
        full = {"pulls__windows": ["00:00-24:00"], "pulls__disk_threshold": "0%"}
        async with mirrored(tmp_path, fake, **full) as (mirror, client):
            status, answer = await ask(client, "POST", "/mirror/v1/queue", {"name": "n"})
            assert (status, "pulls.disk_threshold is 0%" in answer["detail"]) == (507, True)
            queue = mirror.parts.queue
            while queue.jobs[0].error is None:
                queue.changed.clear()
                await queue.changed.wait()
            assert "pulls.disk_threshold" in queue.jobs[0].error
            assert queue.jobs[0].not_before is not None
        assert not fake.asked("manifest")


async def test_another_disk_may_be_watched(tmp_path: Path) -> None:
    """One that has no size is never full; one that is not there takes nothing, and says which setting it is."""
    said = {**NEVER, "pulls__disk_threshold": "0%"}
    async with running_fake_registry() as fake:
        for path, right in (("/proc", 202), (tmp_path / "none", 507)):
            async with mirrored(tmp_path, fake, **said, pulls__disk_path=path) as (mirror, client):
                status, answer = await ask(client, "POST", "/mirror/v1/queue", {"name": "m"})
                assert (status, right == 202 or "(pulls.disk_path)" in answer["detail"]) == (right, True)
                for job in mirror.parts.queue.jobs:
                    await mirror.parts.queue.cancel(job.id)


async def test_the_queue_by_the_older_routes(tmp_path: Path) -> None:
    """One row for three askers; taken out by its name, whatever the spelling."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER) as (mirror, client):
        for _ in range(3):
            await ask(client, "POST", "/mirror/v1/queue", {"name": "llama2:70b"})
        status, answer = await ask(client, "GET", "/api/queue")
        (row,) = answer["queue"]
        assert (status, row["model"], row["status"], row["position"]) == (200, "llama2:70b", "pending", 1)
        for body, right in (({}, 400), ({"name": "a b"}, 400), ({"name": "other"}, 404), ({"name": 5}, 400)):
            status, answer = await ask(client, "DELETE", "/api/queue", body)
            assert (status, bool(answer["error"])) == (right, True)
        status, answer = await ask(client, "DELETE", "/api/queue", {"name": "LLAMA2:70b"})
        assert (status, answer["status"]) == (200, "success")
        assert not mirror.parts.queue.jobs


async def test_health_as_the_older_proxy_said_it(tmp_path: Path) -> None:
    """Healthy with an Ollama behind, unhealthy without the one that should be there, degraded while the disk fills."""
    async with fronted(tmp_path, pulls__disk_threshold="100%") as there:
        status, answer = await ask(there.client, "GET", "/api/health")
        assert (status, answer["status"], set(answer["checks"])) == (
            200,
            "healthy",
            {"proxy", "backend", "disk", "database"},
        )
        assert set(answer["checks"]["disk"]) == {"status", "path", "used_percent", "free_gb"}
        assert (await ask(there.client, "GET", "/health"))[0] == 200
        await there.ollama.down()
        status, answer = await ask(there.client, "GET", "/api/health")
        assert (status, answer["status"], answer["checks"]["backend"]["status"]) == (503, "unhealthy", "error")


async def test_a_disk_above_its_threshold_is_degraded(tmp_path: Path) -> None:
    """It serves, and says that it will not queue."""
    said = {**NEVER, "pulls__disk_threshold": "0%", "proxy__backend": "none"}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **said) as (mirror, client):
        used = mirror.parts.guards.used
        status, answer = await ask(client, "GET", "/api/health")
        assert (status, answer["status"]) == ((200, "degraded") if used < 99 else (503, "unhealthy"))


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("RATE_LIMIT", "7", "daily_limit", 7),
        ("CLEANUP_DAYS", "10", "history", 864_000.0),
        ("DISK_THRESHOLD", "80", "disk_threshold", "80%"),
        ("DISK_PATH", "/data/ollama", "disk_path", Path("/data/ollama")),
    ],
)
def test_the_variables_of_the_older_proxy(name: str, text: str, key: str, value: object) -> None:
    """Its configuration goes on to work."""
    found = getattr(load(None, {name: text}, {}).settings.pulls, key)
    assert (str(found) if key == "disk_threshold" else found) == value


async def test_news_of_the_queue_wakes_who_waits(tmp_path: Path) -> None:
    """The end of a job is seen by whoever looks after the next change."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER) as (mirror, client):
        add_blob(fake, 1000)
        await ask(client, "POST", "/mirror/v1/queue/add", {"name": "m", "at_once": True})
        await until(mirror, lambda: len(mirror.parts.store.complete) == 1)
