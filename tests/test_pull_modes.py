"""POST /api/pull in its modes, and how what is queued looks to the programs of Ollama's users."""

import asyncio
import json
from pathlib import Path
from typing import Any

import ollama
import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.pulls import State, Wish
from mirror.values import Digest, ModelName
from tests.behind import Fronted, asked, closed, fronted
from tests.fakes import Fault, Wrong
from tests.fakes.ollama_trouble import Trouble
from tests.support import SOON_S, eventually, noise
from tests.test_proxy_clients import client_of, plain_client_of

FAR = ModelName.parse("far")
WEIGHTS = noise(300_000)
QUEUED = "* [QUEUED] far:latest"


def add(at: Fronted, name: str = "far", weights: bytes = WEIGHTS) -> None:
    """Have the registry hold a model."""
    at.registry.add_model(f"library/{name}:latest", {MODEL_TYPE: weights})


async def listed(at: Fronted) -> list[str]:
    """What /api/tags names."""
    return [one["model"] for one in json.loads((await at.client.get("/api/tags")).body)["models"]]


async def over(at: Fronted, name: ModelName = FAR) -> str:
    """Wait until a model's job is over; return how it ended."""
    queue = at.mirror.parts.queue

    async def gone() -> bool:
        return queue.of(name) is None

    await eventually(gone)
    return next(job.state.value for job in await queue.history(100) if job.name == name)


async def pull(at: Fronted, name: str = "far", **said: Any) -> Any:
    """Ask for a model with one answer; return it with its status."""
    return await at.json("/api/pull", {"model": name, "stream": False, **said})


async def test_a_day_as_the_issue_tells_it(tmp_path: Path) -> None:
    """Noon: queued, shown, one row for three askers. At night it comes and is delivered; at noon again at once."""
    async with fronted(tmp_path, **closed()) as at, asyncio.timeout(SOON_S):
        add(at)
        for who in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
            await at.mirror.parts.wishes.want(Wish(FAR, "anonymous", who))
        said = {"status": "queued", "message": "Model far is in the download queue"}
        assert await pull(at) == (200, said)
        assert await listed(at) == ["m:latest", QUEUED]
        (row,) = json.loads((await at.client.get("/api/queue")).body)["queue"]
        assert (row["model"], row["status"], row["requests"], row["size"]) == ("far:latest", "pending", 4, 300_023)
        assert not at.registry.asked("blob")
        await at.client.get("/mirror/v1/queue/run", method="POST")
        assert await over(at) == "completed"
        assert await listed(at) == ["far:latest", "m:latest"]
        fetched = len(at.registry.log)
        assert await pull(at) == (200, {"status": "success"})
        assert at.ollama.folder.find("far") is not None
        at.ollama.folder.delete(FAR)
        assert await pull(at) == (200, {"status": "success"})
        assert await listed(at) == ["far:latest", "m:latest"]
        assert len(at.registry.log) == fetched


async def test_a_pull_is_queued_in_the_words_of_the_first_seed(tmp_path: Path) -> None:
    """A stream says so first, then when it comes, and ends well: Open WebUI takes any other end for a failure."""
    async with fronted(tmp_path, **closed()) as at:
        add(at)
        said = {"status": "queued", "message": "Model far:latest added to download queue"}
        assert await pull(at, "far:latest") == (200, said)
        status, lines = await at.json("/api/pull", {"name": "far", "insecure": True})
        assert status == 200
        assert lines[0] == {"status": "queued", "message": "Model far is in the download queue"}
        assert lines[1]["status"].startswith("queued: position 1, fetched from ")
        assert lines[2:] == [{"status": "success"}]


async def test_the_packages_that_people_use_understand_it(tmp_path: Path) -> None:
    """The lines, the marked row in the list, show and delete of it, async and not."""
    async with fronted(tmp_path, **closed()) as at, client_of(at.mirror.url) as client:
        add(at)
        assert [part.status async for part in await client.pull("far", stream=True)][-1] == "success"
        assert (await client.pull("far")).status == "queued"
        (queued,) = [one for one in (await client.list()).models if one.model == QUEUED]
        assert (len(queued.digest or ""), queued.size) == (64, 300_023)
        assert "position 1, fetched from" in str((await client.show(QUEUED)).modelfile)
        with pytest.raises(ollama.ResponseError, match="'far:latest' not found: queued: position 1") as missing:
            await client.show("far")
        assert missing.value.status_code == 404
        await client.delete(QUEUED)
        assert await listed(at) == ["m:latest"]

        def plain() -> None:
            with plain_client_of(at.mirror.url) as other:
                assert other.pull("far")["status"] == "queued"
                assert [one.model for one in other.list().models] == ["m:latest", QUEUED]
                assert other.delete("far")["status"] == "success"
                assert [one.model for one in other.list().models] == ["m:latest"]

        await asyncio.to_thread(plain)
        assert [job.state for job in await at.mirror.parts.queue.history(9)] == [State.CANCELLED, State.CANCELLED]


async def test_now_tells_real_progress_and_success_comes_last(tmp_path: Path) -> None:
    """When it is told, the Ollama has the model."""
    async with fronted(tmp_path, pulls__mode="now", **closed()) as at, asyncio.timeout(SOON_S):
        add(at)
        status, lines = await at.json("/api/pull", {"model": "far"})
        assert (status, lines[0], lines[-1]) == (200, {"status": "pulling manifest"}, {"status": "success"})
        full = {"digest": str(Digest.of(WEIGHTS)), "total": 300_000, "completed": 300_000}
        assert any(full.items() <= line.items() for line in lines)
        assert await listed(at) == ["far:latest", "m:latest"]
        assert await pull(at) == (200, {"status": "success"})


async def test_wait_keeps_the_stream_open_until_the_model_is_there(tmp_path: Path) -> None:
    """It says where it stands meanwhile, and waits through a failure that passes."""
    async with fronted(tmp_path, pulls__mode="wait", pulls__retry_delay=0, **closed()) as at, asyncio.timeout(SOON_S):
        add(at)
        at.ollama.troubles.add(Trouble.STATUS, "/api/copy", status=500)
        async with at.client.session.post(at.client.url("/api/pull"), json={"model": "far"}) as answer:
            assert json.loads(await answer.content.readline()) == {"status": "pulling manifest"}
            said = json.loads(await answer.content.readline())["status"]
            assert said.startswith("queued: position 1, fetched from ")
            await at.mirror.parts.queue.hurry("far:latest")
            lines = [json.loads(line) for line in (await answer.read()).splitlines()]
        assert [line["status"] for line in lines[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
        assert await listed(at) == ["far:latest", "m:latest"]


async def test_an_admin_may_say_now_and_a_client_may_choose_to_wait(tmp_path: Path) -> None:
    """Others may not; a word that is no mode is refused."""
    async with fronted(tmp_path, security__api_key="k" * 20, security__anonymous=["api"], **closed()) as at:
        add(at)
        body = {"model": "far", "stream": False}
        status, refused = await asked(at.client, "/api/pull", body, X_Mirror_Pull="now")
        assert (status, "needs a key" in json.dumps(refused)) == (401, True)
        status, refused = await asked(at.client, "/api/pull", body, X_Mirror_Pull="later")
        assert (status, "accepted: queue, now, wait" in refused["error"]) == (400, True)
        assert at.mirror.parts.queue.jobs == []
        key = {"Authorization": f"Bearer {'k' * 20}", "X_Mirror_Pull": "now"}
        assert await asked(at.client, "/api/pull", body, **key) == (200, {"status": "success"})
        assert await listed(at) == ["far:latest", "m:latest"]


async def test_a_failed_pull_now_is_an_error_and_leaves_no_job(tmp_path: Path) -> None:
    """Nobody expects a pull that failed before their eyes to go on in the night."""
    async with fronted(tmp_path, pulls__mode="now", upstream__retry_attempts=0, **closed()) as at:
        add(at)
        at.registry.faults.add(Fault(Wrong.STATUS, "blob", value=500))
        status, lines = await at.json("/api/pull", {"model": "far"})
        assert (status, "500" in lines[-1]["error"]) == (200, True)
        assert (await over(at), await listed(at)) == ("cancelled", ["m:latest"])


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_client_that_leaves_a_pull_now(keeps: bool, tmp_path: Path) -> None:
    """It goes on or not as cache.keep_filling says; another's interest keeps it in any case."""
    changes: dict[str, Any] = {"pulls__mode": "now", "cache__keep_filling": keeps}
    async with fronted(tmp_path, **changes, **closed()) as at, asyncio.timeout(SOON_S):
        add(at)
        at.registry.hold(Digest.of(WEIGHTS), 100_000)
        async with at.client.session.post(at.client.url("/api/pull"), json={"model": "far"}) as answer:
            await answer.content.readline()
        if not keeps:
            assert await over(at) == "cancelled"
        at.registry.release(Digest.of(WEIGHTS))
        if keeps:
            assert await over(at) == "completed"


@pytest.mark.parametrize("mode", ["queue", "now", "wait"])
async def test_what_is_unknown_upstream_is_said_in_ollama_s_words_and_not_queued(mode: str, tmp_path: Path) -> None:
    """A typing error must not wait for the night to be found."""
    async with fronted(tmp_path, pulls__mode=mode, **closed()) as at:
        missing = {"error": "pull model manifest: file does not exist"}
        assert await pull(at, "nope") == (500, missing)
        assert await at.json("/api/pull", {"model": "nope"}) == (200, [{"status": "pulling manifest"}, missing])
        assert at.mirror.parts.queue.jobs == []


async def test_what_may_not_be_queued_has_its_status_and_changes_nothing(tmp_path: Path) -> None:
    """The day's sixth, a blocked model, a full queue, a full disk."""
    async with fronted(tmp_path, security__blocked_models=["bad*"], pulls__max_queued=6, **closed()) as at:
        for number in range(6):
            add(at, f"m{number}")
        for number in range(5):
            assert (await pull(at, f"m{number}"))[0] == 200
        status, said = await pull(at, "m5")
        assert (status, said["error"]) == (
            429,
            "127.0.0.1 has asked for 5 models today, which is all (pulls.daily_limit); try tomorrow",
        )
        assert (await pull(at, "m0"))[0] == 200
        assert (await pull(at, "bad"))[0] == 403
        await at.mirror.parts.wishes.want(Wish(ModelName.parse("other"), "anonymous", "10.0.0.9"))
        full = await at.client.session.post(at.client.url("/api/pull"), json={"model": "m5", "stream": False})
        assert full.status == 429
        assert len(at.mirror.parts.queue.jobs) == 6
    async with fronted(tmp_path / "two", pulls__max_queued=1, **closed()) as at:
        for name in ("m1", "m2"):
            add(at, name)
        assert (await pull(at, "m1"))[0] == 200
        status, said = await pull(at, "m2")
        assert (status, said["error"].startswith("the queue is full (pulls.max_queued is 1)")) == (503, True)
    async with fronted(tmp_path / "three", pulls__disk_threshold="0.001%", **closed()) as at:
        add(at)
        status, said = await pull(at)
        assert (status, "pulls.disk_threshold is" in said["error"]) == (507, True)
        assert at.mirror.parts.queue.jobs == []


async def test_the_older_one_serves_until_the_newer_comes(tmp_path: Path) -> None:
    """A tag that has moved is queued, and what the store has is delivered meanwhile."""
    async with fronted(tmp_path, cache__manifest_ttl=0, **closed()) as at, asyncio.timeout(SOON_S):
        add(at)
        await at.mirror.parts.puller.pull(FAR, lambda _: None)
        add(at, weights=noise(50_000, 7))
        assert (await pull(at))[1]["status"] == "queued"
        assert await listed(at) == ["far:latest", "m:latest", QUEUED]
        await at.mirror.parts.queue.hurry("far:latest")
        assert await over(at) == "completed"
        assert at.ollama.folder.row(FAR)["size"] == 50_023


async def test_an_upstream_that_cannot_be_asked_is_asked_at_night(tmp_path: Path) -> None:
    """The line to the internet is down, and yet a wish is a wish."""
    async with fronted(tmp_path, upstream__retry_attempts=0, **closed()) as at:
        at.registry.faults.add(Fault(Wrong.STATUS, "any", value=503))
        assert (await pull(at))[1]["status"] == "queued"


async def test_a_delivery_that_fails_is_tried_again_at_any_hour(tmp_path: Path) -> None:
    """The bytes are here: no window has to open for that."""
    async with fronted(tmp_path, pulls__retry_delay=0, **closed()) as at, asyncio.timeout(SOON_S):
        add(at)
        await pull(at)
        for path in ("/api/pull", "/api/copy", "/api/tags"):
            at.ollama.troubles.add(Trouble.STATUS, path, status=500)
        await at.mirror.parts.queue.hurry("far:latest")
        assert await over(at) == "completed"
        assert at.ollama.folder.find("far") == FAR
        (job,) = await at.mirror.parts.queue.history(1)
        assert job.tries == 4


async def test_rm_of_a_queued_model_needs_no_admin_and_of_another_does(tmp_path: Path) -> None:
    """With the model on the Ollama and queued, its job goes with it."""
    async with fronted(tmp_path, security__api_key="k" * 20, security__anonymous=["api"], **closed()) as at:
        add(at)
        await pull(at)
        assert await at.json("/api/delete", {"model": QUEUED}, method="DELETE") == (200, "")
        assert (await at.json("/api/delete", {"model": "m"}, method="DELETE"))[0] == 401
        add(at, "m", noise(10))
        await pull(at, "m")
        key = {"Authorization": f"Bearer {'k' * 20}"}
        assert await asked(at.client, "/api/delete", {"model": "m"}, method="DELETE", **key) == (200, "")
        assert (await listed(at), at.mirror.parts.queue.jobs) == ([], [])


async def test_what_is_stored_only_is_listed_where_that_is_set(tmp_path: Path) -> None:
    """A pull by the marked name, as a click in Open WebUI makes it, delivers it at once."""
    async with fronted(tmp_path, pulls__show_stored=True, **closed()) as at:
        add(at)
        await at.mirror.parts.puller.pull(FAR, lambda _: None)
        marked = "* [STORED] far:latest"
        assert await listed(at) == ["m:latest", marked]
        assert (await at.json("/api/show", {"model": marked}))[0] == 200
        assert await pull(at, marked) == (200, {"status": "success"})
        assert await listed(at) == ["far:latest", "m:latest"]


async def test_the_list_hides_what_the_policy_hides_whoever_has_it(tmp_path: Path) -> None:
    """Of the Ollama, of the queue."""
    async with fronted(tmp_path, security__blocked_models=["m"], **closed()) as at:
        await at.mirror.parts.queue.ask(ModelName.parse("m:latest"), "x")
        assert await listed(at) == []


async def test_without_an_ollama_pulls_are_queued_too(tmp_path: Path) -> None:
    """And come into the store."""
    async with fronted(tmp_path, backend="none", **closed()) as at, asyncio.timeout(SOON_S):
        add(at)
        assert (await pull(at))[1]["status"] == "queued"
        assert await listed(at) == [QUEUED]
        await at.mirror.parts.queue.hurry("far:latest")
        assert (await over(at), await listed(at)) == ("completed", ["far:latest"])
