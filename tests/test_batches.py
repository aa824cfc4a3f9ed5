"""Batches of a mirror in front of an Ollama, by OpenAI's own client."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from mirror.access import Keyring, Scope
from tests.batches import CHAT, batching, chat, using
from tests.behind import closed
from tests.fakes.ollama_trouble import Trouble
from tests.prompts import Prompting
from tests.support import SOON_S

WORDS = "one two three four"


async def test_a_batch_from_its_file_to_its_answers(tmp_path: Path) -> None:
    """Upload, create, poll, read, list, delete."""
    async with batching(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        file = await me.client.files.create(file=("in.jsonl", b'{"custom_id"'), purpose="batch")
        assert (file.filename, file.bytes, file.purpose, file.object) == ("in.jsonl", 12, "batch", "file")
        begun = await me.begin(chat("a"), b"", chat("b"), b"  \r", chat("c"), metadata={"of": "ann"})
        assert (begun.status, begun.endpoint, begun.metadata) == ("validating", CHAT, {"of": "ann"})
        assert begun.expires_at == begun.created_at + 86_400
        done = await me.until(begun.id, "completed")
        assert done.request_counts is not None
        assert done.request_counts.model_dump() == {"total": 3, "completed": 3, "failed": 0}
        assert (done.errors, done.error_file_id, done.failed_at) == (None, None, None)
        assert done.in_progress_at
        assert done.finalizing_at
        assert done.completed_at
        lines = await me.lines(done.output_file_id)
        assert [one["custom_id"] for one in lines] == ["a", "b", "c"]
        for one in lines:
            assert list(one) == ["id", "custom_id", "response", "error"]
            assert (one["error"], one["response"]["status_code"]) == (None, 200)
            assert one["response"]["body"]["choices"][0]["message"]["content"] == WORDS
        sent = json.loads(at.ollama.troubles.of(CHAT)[0].body)
        assert sent == chat("a")["body"]
        assert (await Prompting(at.client).get("prompts"))[1]["total"] == 0
        listed = [one async for one in me.client.batches.list()]
        assert [one.id for one in listed] == [done.id]
        assert listed[0] == done
        files = [one.id async for one in me.client.files.list()]
        assert files == [done.output_file_id, done.input_file_id, file.id]
        for id_ in files:
            assert (await me.client.files.delete(str(id_))).deleted
        with pytest.raises(openai.NotFoundError):
            await me.client.files.content(file.id)
        assert list((tmp_path / "state" / "files").iterdir()) == []


async def test_every_endpoint_takes_its_lines(tmp_path: Path) -> None:
    """With what each takes; a stream is never asked for, and an alias is replaced."""
    async with batching(tmp_path, dispatch__aliases={"fast": "m"}) as (at, me), asyncio.timeout(SOON_S):
        for endpoint, body in (
            ("/v1/completions", {"prompt": "say", "stream": True, "stream_options": {}}),
            ("/v1/embeddings", {"input": ["abc"]}),
            ("/v1/responses", {"input": "say"}),
        ):
            line = {"custom_id": "a", "url": endpoint, "body": {**body, "model": "FAST"}}
            begun = await me.begin(line, endpoint=endpoint)
            (found,) = await me.lines((await me.until(begun.id, "completed")).output_file_id)
            assert found["response"]["body"]["object"] in ("text_completion", "list", "response")
            sent = json.loads(at.ollama.troubles.of(endpoint)[0].body)
            assert (sent["model"], "stream" in sent, "stream_options" in sent) == ("m", False, False)


async def test_lines_that_are_wrong_go_to_the_error_file_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Whatever is wrong with them, each with why; and so do those that an Ollama refuses."""
    async with batching(tmp_path, security__blocked_models=("secret",)) as (at, me), asyncio.timeout(SOON_S):
        body = chat("x")["body"]
        begun = await me.begin(
            chat("good"),
            b"{",
            b"[1]",
            b"\xff\xfe",
            {**chat("x"), "custom_id": None},
            chat("x" * 513),
            chat("good"),
            chat("get", method="GET"),
            chat("other", url="/v1/completions"),
            chat("none", body=None),
            chat("no model", body={"messages": []}),
            chat("forbidden", body={**body, "model": "secret"}),
            chat("no name", body={**body, "model": "a b"}),
            chat("absent", body={**body, "model": "nope"}),
            chat("\ud800 last\0"),
        )
        done = await me.until(begun.id, "completed")
        assert done.request_counts is not None
        assert done.request_counts.model_dump() == {"total": 15, "completed": 2, "failed": 13}
        assert [one["custom_id"] for one in await me.lines(done.output_file_id)] == ["good", "\ud800 last\0"]
        wrong = await me.lines(done.error_file_id)
        assert [(one["custom_id"], one["error"]["code"]) for one in wrong[:-1]] == [
            (None, "invalid_json"),
            (None, "invalid_json"),
            (None, "invalid_json"),
            (None, "missing_custom_id"),
            (None, "missing_custom_id"),
            ("good", "duplicate_custom_id"),
            ("get", "invalid_method"),
            ("other", "mismatched_endpoint"),
            ("none", "invalid_body"),
            ("no model", "invalid_body"),
            ("forbidden", "model_not_allowed"),
            ("no name", "model_not_allowed"),
        ]
        absent = wrong[-1]
        assert (absent["custom_id"], absent["error"], absent["response"]["status_code"]) == ("absent", None, 404)
        assert "model 'nope' not found" in absent["response"]["body"]["error"]["message"]
        assert len(at.ollama.troubles.of(CHAT)) == 3


async def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    """An Ollama that stops in the middle, and one too often; a request that is refused is not."""
    async with batching(tmp_path, prompts__tries=2, dispatch__max_failures=100) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.troubles.add(Trouble.STATUS, CHAT, status=500, times=3)
        at.ollama.troubles.add(Trouble.STATUS, CHAT, status=400)
        begun = await me.begin(chat("a"), chat("b"), chat("c"), metadata={"run": "now"})
        done = await me.until(begun.id, "completed")
        assert done.request_counts is not None
        found = {one["custom_id"]: one["response"] for one in await me.lines(done.error_file_id)}
        statuses = sorted(one["status_code"] for one in found.values())
        assert done.request_counts.completed + len(statuses) == 3
        assert 400 in statuses
        assert all(one["body"]["error"]["message"] for one in found.values())


async def test_a_batch_runs_while_nobody_else_wants_an_ollama(tmp_path: Path) -> None:
    """Or at once, where its metadata say so, or in a window; one of each at a time, the others wait."""
    async with batching(tmp_path, **closed()) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        prompts = Prompting(at.client)
        first = await prompts.submit()
        await prompts.until(first, "processing")
        idle = await me.begin(chat("idle", "idle"))
        night = await me.begin(chat("night"), metadata={"run": "window"})
        await me.until(idle.id, "in_progress")
        now = await me.begin(chat("now", "now"), metadata={"run": "now"})
        behind = await me.begin(chat("behind"))
        at.ollama.pace.release(1000)
        for one in (now, idle, behind):
            await me.until(one.id, "completed")
        order = [json.loads(one.body)["messages"][0]["content"] for one in at.ollama.troubles.of(CHAT)]
        assert order == ["now", "idle", "say"]
        assert (await me.client.batches.retrieve(night.id)).status == "in_progress"


async def test_a_cancelled_batch_keeps_what_was_answered(tmp_path: Path) -> None:
    """What runs is ended, and what waits is not begun."""
    async with batching(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        at.ollama.pace.release(4)
        begun = await me.begin(*(chat(str(number)) for number in range(100)))
        await me.until_answered(begun.id, 1)
        with pytest.raises(openai.BadRequestError, match="no batch under way"):
            await me.client.files.delete(begun.input_file_id)
        assert (await me.client.batches.cancel(begun.id)).status in ("cancelling", "cancelled")
        done = await me.until(begun.id, "cancelled")
        assert done.request_counts is not None
        assert done.request_counts.model_dump() == {"total": 100, "completed": 1, "failed": 0}
        assert done.cancelled_at
        assert [one["custom_id"] for one in await me.lines(done.output_file_id)] == ["0"]
        with pytest.raises(openai.BadRequestError, match="under way"):
            await me.client.batches.cancel(begun.id)
        at.ollama.pace.release(1000)
        await me.until((await me.begin(chat("next"))).id, "completed")


async def test_what_has_no_answer_in_a_day_is_an_error(tmp_path: Path) -> None:
    """What was answered stays; the mirror may have been away when the day was over."""
    async with batching(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        at.ollama.pace.release(4)
        begun = await me.begin(*(chat(str(number)) for number in range(20)), b"{")
        await me.until_answered(begun.id, 1)
        await at.ollama.troubles.wait_for(lambda: len(at.ollama.troubles.of(CHAT)) == 2)
    with sqlite3.connect(tmp_path / "state" / "mirror.db") as connection:
        connection.execute("UPDATE batches SET created_at = datetime(created_at, '-1 day') || '.000000'")
    connection.close()
    async with batching(tmp_path) as (_, me), asyncio.timeout(SOON_S):
        done = await me.until(begun.id, "expired")
        counts, answered = done.request_counts, await me.lines(done.output_file_id)
        late = await me.lines(done.error_file_id)
        assert counts is not None
        assert 1 <= len(answered) < 10, "those that were in work may be answered before anybody looks at the time"
        assert (counts.total, counts.completed, counts.failed) == (21, len(answered), len(late))
        found = sorted([one["custom_id"] for one in (*answered, *late[:-1])], key=int)
        assert (found, late[-1]["custom_id"]) == ([*map(str, range(20))], None)
        assert {one["error"]["code"] for one in late} == {"batch_expired", "invalid_json"}


async def test_pages_of_the_lists(tmp_path: Path) -> None:
    """After an id, as many as are asked for; numbers that are none are refused."""
    async with batching(tmp_path) as (_, me), asyncio.timeout(SOON_S):
        ids = [(await me.begin(chat("a"))).id for _ in range(5)]
        page = await me.client.batches.list(limit=2)
        assert ([one.id for one in page.data], page.has_more) == (ids[:2:-1], True)
        page = await me.client.batches.list(limit=100, after=ids[3])
        assert ([one.id for one in page.data], page.has_more) == (ids[2::-1], False)
        assert [one.id async for one in me.client.batches.list(limit=2)] == ids[::-1]
        assert (await me.client.batches.list(after="batch_none")).data == []
        for one in ids:
            await me.until(one, "completed")
        inputs = [one.id async for one in me.client.files.list(limit=2, purpose="batch", order="asc")]
        assert len(inputs) == 5
        assert len([one async for one in me.client.files.list()]) == 10
        for limit in (0, -1, 10**9, 10**30):
            for refused in (me.client.batches.list, me.client.files.list):
                with pytest.raises(openai.BadRequestError, match="limit: a whole number"):
                    await refused(limit=limit)
        with pytest.raises(openai.BadRequestError, match="order"):
            await me.client.files.list(order="up")  # type: ignore[arg-type]  # what is wrong


async def test_bad_files_are_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    """Empty, too large, for another purpose, no form at all; and too much all together."""
    async with batching(tmp_path, prompts__file_size=2048, prompts__files_size=3000) as (at, me):
        for content, purpose, problem in (
            (b"", "batch", "one line or more"),
            (b" \n\n \t\n", "batch", "one line or more"),
            (b"{}\n", "fine-tune", "purpose: batch"),
            (b"x" * 2049, "batch", "prompts.file_size"),
            (b"x" * 2_000_000, "batch", "prompts.file_size"),
        ):
            said: Any = purpose
            with pytest.raises(openai.APIStatusError, match=problem) as refused:
                await me.client.files.create(file=("in.jsonl", content), purpose=said)
            assert refused.value.status_code == (413 if "size" in problem else 400)
            assert refused.value.type == "invalid_request_error"
        url = at.client.url("/v1/files")
        boundary = {"Content-Type": "multipart/form-data; boundary=x"}
        for body, headers in (
            (b"{}", {"Content-Type": "application/json"}),
            (b"", {"Content-Type": "multipart/form-data"}),
            (b"nothing", boundary),
            (b"--x\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n--x--\r\n", boundary),
        ):
            async with at.client.session.post(url, data=body, headers=headers) as answer:
                assert (answer.status, list(await answer.json())) == (400, ["error"]), body
        form = aiohttp.FormData({"purpose": "x" * 5000})
        async with at.client.session.post(url, data=form) as answer:
            assert answer.status in (400, 413)
        assert [one async for one in me.client.files.list()] == []
        assert list((tmp_path / "state" / "files").iterdir()) == []
        kept = await me.client.files.create(file=("a", b"x" * 2000), purpose="batch")
        with pytest.raises(openai.APIStatusError, match=r"prompts\.files_size"):
            await me.client.files.create(file=("b", b"x" * 2000), purpose="batch")
        await me.client.files.delete(kept.id)
        await me.client.files.create(file=("b", b"x" * 2000), purpose="batch")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"input_file_id": "file-none"}, "No such File object: file-none"),
        ({"input_file_id": ""}, "input_file_id"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"endpoint": "/v1/audio"}, "endpoint: /v1/chat"),
        ({"endpoint": None}, "endpoint: /v1/chat"),
        ({"completion_window": "1h"}, "completion_window: 24h"),
        ({"metadata": []}, "metadata: at most"),
        ({"metadata": {"a": 1}}, "metadata: at most"),
        ({"metadata": {"a": "x" * 513}}, "metadata: at most"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata: at most"),
        ({"metadata": {"run": "later"}}, "now, idle, window"),
        ({"metadata": {"run": "window"}}, "no windows"),
    ],
)
async def test_a_batch_that_is_none_is_refused(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """With what would be one."""
    async with batching(tmp_path, pulls__windows=[]) as (at, me):
        file = await me.upload(chat("a"))
        said = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", **changes}
        status, answer = await at.json("/v1/batches", said)
        assert (status, problem in answer["error"]["message"]) == (404 if "No such" in problem else 400, True), answer
        assert list(answer["error"]) == ["message", "type", "param", "code"]
        assert [one async for one in me.client.batches.list()] == []
        for body in (b"", b"[", b"[1]", b"\xff", b"[" * 100_000):
            assert (await at.json("/v1/batches", body))[0] == 400
        assert (await at.json("/v1/batches", b" " * 50_000_000))[0] == 413


async def test_what_there_is_not_is_not_found(tmp_path: Path) -> None:
    """In OpenAI's form."""
    async with batching(tmp_path) as (_, me):
        for asking in (
            me.client.files.retrieve("nope"),
            me.client.files.content("nope"),
            me.client.files.delete("../mirror.db"),
            me.client.batches.retrieve("x" * 3000),
            me.client.batches.cancel("nope"),
        ):
            with pytest.raises(openai.NotFoundError, match="No "):
                await asking


async def test_with_keys_a_user_sees_their_own_only(tmp_path: Path) -> None:
    """An admin sees all; nobody's file is another's input; a stranger may nothing."""
    (tmp_path / "state").mkdir()
    ring = Keyring(tmp_path / "state")
    keys = {name: ring.add(name, [Scope.API])[1] or "" for name in ("ann", "bob")}
    keys["root"] = ring.add("root", [Scope.ADMIN, Scope.API])[1] or ""
    async with batching(tmp_path) as (at, stranger), asyncio.timeout(SOON_S):
        ann, bob, root = (using(at.mirror.url, keys[name]) for name in ("ann", "bob", "root"))
        async with ann.client, bob.client, root.client:
            with pytest.raises(openai.AuthenticationError):
                await stranger.client.files.list()
            begun = await ann.begin(chat("a"))
            done = await ann.until(begun.id, "completed")
            said: Any = {"input_file_id": begun.input_file_id, "endpoint": CHAT, "completion_window": "24h"}
            for asking in (
                bob.client.files.content(begun.input_file_id),
                bob.client.files.delete(str(done.output_file_id)),
                bob.client.batches.retrieve(begun.id),
                bob.client.batches.cancel(begun.id),
                bob.client.batches.create(**said),
            ):
                with pytest.raises(openai.NotFoundError):
                    await asking
            totals = [len([one async for one in who.client.files.list()]) for who in (ann, bob, root)]
            assert totals == [2, 0, 2]
            totals = [len([one async for one in who.client.batches.list()]) for who in (ann, bob, root)]
            assert totals == [1, 0, 1]
            assert (await root.lines(done.output_file_id))[0]["custom_id"] == "a"


async def test_without_prompts_there_are_no_batches(tmp_path: Path) -> None:
    """As for an Ollama."""
    async with batching(tmp_path, prompts__enabled=False) as (_, me):
        with pytest.raises(openai.NotFoundError):
            await me.client.batches.list()
