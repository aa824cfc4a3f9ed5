"""What an attack on pages, events, prompts, batches and reloading found, each of it held by a test."""

import asyncio
import json
import signal
import sys
from io import BytesIO
from pathlib import Path

from aiohttp import FormData

from mirror.access import Keyring, Scope
from mirror.events import FillEnded
from mirror.prompts.live import Live
from mirror.values import Digest
from tests.behind import asked, fronted
from tests.disks import small_disk
from tests.fakes.registry import running_fake_registry
from tests.pages import page, send
from tests.support import Machine, eventually, mirrored
from tests.test_event_stream import until, watched

BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}


async def uploaded(client: Machine, count: int = 1) -> str:
    """A file of so many lines; its id."""
    form = FormData({"purpose": "batch"})
    lines = "\n".join(json.dumps({**LINE, "custom_id": str(number)}) for number in range(count))
    form.add_field("file", lines.encode(), filename="lines.jsonl")
    async with client.session.post(client.url("/v1/files"), data=form) as answer:
        return str((await answer.json())["id"])


async def test_a_file_is_written_to_its_end_or_not_at_all(tmp_path: Path) -> None:
    """Where its last bytes find no room an upload is refused, and nothing of it stays; then there is room again."""
    (tmp_path / "state").mkdir()
    with small_disk(tmp_path / "state" / "files", "1m") as disk:
        async with fronted(tmp_path) as at:
            form = FormData({"purpose": "batch"})
            form.add_field("file", BytesIO(b"{}\n" * 350_500), filename="lines.jsonl")
            async with at.client.session.post(at.client.url("/v1/files"), data=form) as answer:
                assert answer.status >= 500
                assert "error" in await answer.json()
            assert list(disk.iterdir()) == []
            assert (await uploaded(at.client)).startswith("file-")


async def test_a_key_is_its_user_whatever_the_headers_say(tmp_path: Path) -> None:
    """Else any key would read what is anybody's."""
    ring = Keyring(tmp_path / "state")
    keys = {name: f"Bearer {ring.add(name, [Scope.API])[1]}" for name in ("ann", "bob")}
    proxied, away = {"security__trusted_proxies": ["127.0.0.1"]}, {"X_Forwarded_For": "192.0.2.7"}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **proxied) as (_, client):
        _, left = await asked(client, "/api/v1/prompt", {"prompt": "mine"}, Authorization=keys["ann"], **away)
        path = f"/api/v1/prompt/{left['id']}/status"
        for name, headers, status in (("bob", {}, 404), ("bob", {"X_User_ID": "ann"}, 404), ("ann", {}, 200)):
            answer = await client.get(path, None, Authorization=keys[name], **headers, **away)
            assert answer.status == status, (name, headers)


async def test_a_prompt_whose_end_is_not_taken_is_asked_anew(tmp_path: Path) -> None:
    """It must not stay as if it ran until the next life."""
    async with fronted(tmp_path) as at:
        prompts = at.mirror.parts.prompting.prompts
        at.ollama.pace.hold()
        _, left = await asked(at.client, "/api/v1/prompt", {"prompt": "x", "model": "m"})

        async def runs() -> bool:
            return prompts.counts()["processing"] == 1

        await eventually(runs)
        prompts.lost(left["id"])
        assert prompts.counts() == {"queued": 1, "processing": 0}
        at.ollama.pace.release(9)

        async def done() -> bool:
            found = await prompts.find(left["id"])
            return found is not None and found.state.over

        await eventually(done)
        prompts.lost(left["id"])
        assert prompts.counts() == {"queued": 0, "processing": 0}


def test_a_long_piece_is_told_in_pieces() -> None:
    """A reader that does not read must not have all of a long answer in its buffer."""
    live = Live()
    live.begin(1)
    live.say("x" * 1_000_000)
    live.say("end")
    read, told = 0, list[str]()
    while piece := live.since(read):
        told.append(piece)
        read += len(piece)
    assert "".join(told) == "x" * 1_000_000 + "end"
    assert max(map(len, told)) <= 2 * (64 << 10)


async def test_a_file_is_not_removed_under_a_batch_that_begins(tmp_path: Path) -> None:
    """Of the two one comes first, and the other is told so."""
    async with fronted(tmp_path) as at:
        for _ in range(10):
            file = await uploaded(at.client)
            async with asyncio.TaskGroup() as group:
                begins = group.create_task(at.json("/v1/batches", {**BATCH, "input_file_id": file}))
                removes = group.create_task(at.client.get(f"/v1/files/{file}", method="DELETE"))
            begun, removed = begins.result()[0] == 200, removes.result().status == 200
            assert begun != removed


async def test_a_file_is_removed_once(tmp_path: Path) -> None:
    """However many ask for it at the same time: what it held is given back once."""
    async with fronted(tmp_path) as at:
        files = at.mirror.parts.batching.files
        await uploaded(at.client, 5)
        before, file = files._held, await uploaded(at.client, 5)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(at.client.get(f"/v1/files/{file}", method="DELETE")) for _ in range(10)]
        assert {task.result().status for task in tasks} <= {200, 404}
        assert files._held == before


async def test_nobody_has_all_the_batches_that_there_may_be(tmp_path: Path) -> None:
    """Others begin theirs."""
    async with fronted(tmp_path) as at:
        at.ollama.pace.hold()
        body = {**BATCH, "input_file_id": await uploaded(at.client)}
        statuses = [(await asked(at.client, "/v1/batches", body, X_User_ID="ann"))[0] for _ in range(101)]
        assert statuses == [200] * 100 + [429]
        assert (await asked(at.client, "/v1/batches", body, X_User_ID="bob"))[0] == 200
        at.ollama.pace.release(9)


async def test_what_is_wrong_is_no_error_of_ours(tmp_path: Path) -> None:
    """Names, ids, numbers."""
    async with fronted(tmp_path) as at:
        for name in ("-1", "%00", "x" * 5000, "%3Cscript%3E"):
            assert (await page(at.client, f"/mirror/models/{name}")).status == 404
        assert (await at.json("/v1/batches", b'{"input_file_id":"\\ud800","endpoint":"/v1/chat/completions"}'))[
            0
        ] == 400
        assert (await at.client.get("/mirror/v1/usage?days=0000000019999999999")).status == 400
        twice = b"".join(
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n' for _ in range(2)
        )
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        async with at.client.session.post(
            at.client.url("/v1/files"), data=twice + b"--x--\r\n", headers=kind
        ) as answer:
            assert answer.status == 400


async def test_the_page_keeps_to_prompts_that_people_left(tmp_path: Path) -> None:
    """Lines of batches are their batch's."""
    async with fronted(tmp_path) as at:
        at.ollama.pace.hold()
        batch = (await at.json("/v1/batches", {**BATCH, "input_file_id": await uploaded(at.client)}))[1]
        prompts = at.mirror.parts.prompting.prompts

        async def has_lines() -> bool:
            return bool(prompts.of_batch(batch["id"]))

        await eventually(has_lines)
        (line,) = prompts.of_batch(batch["id"])
        token = (await page(at.client, "/prompts")).token
        assert (await page(at.client, f"/prompts/{line.id}")).status == 404
        assert (await send(at.client, "/prompts/cancel", token, id=line.id)).status >= 400
        at.ollama.pace.release(9)


async def test_an_error_that_names_a_hidden_model_is_told_to_nobody_it_is_hidden_from(tmp_path: Path) -> None:
    """Nor by a stream that began before the rule did."""
    away = {"X-Forwarded-For": "192.0.2.1"}
    async with (
        fronted(tmp_path, security__rules=[{"deny": ["secret"]}]) as at,
        watched(at.client, "?topics=fills", **away) as events,
    ):
        error = "blob of library/secret: not found upstream"
        at.mirror.parts.events.publish(FillEnded(Digest.of(b"x"), 1, 0, 0.1, error))
        assert "secret" not in (await until(events, "fill_ended"))[1]["error"]


async def test_a_signal_that_comes_too_early_is_no_end(tmp_path: Path) -> None:
    """SIGHUP while it starts: logrotate does not ask whether it is a good moment."""
    store = tmp_path / "store"
    command = ("-m", "mirror", "serve", "--host", "127.0.0.1", "--port", "0", "--store", str(store), "--offline")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None

    async def has_begun() -> bool:
        return (tmp_path / "store.state").exists()

    try:
        await eventually(has_begun)
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(30):
            assert b"mirror serves" in await process.stdout.readline()
    finally:
        process.kill()
        await process.wait()
