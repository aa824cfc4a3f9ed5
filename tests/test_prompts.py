"""Prompt jobs of a mirror in front of an Ollama."""

import asyncio
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mirror.access import Keyring, Scope
from tests.behind import NOBODY
from tests.fakes.ollama_trouble import Trouble
from tests.net import answering
from tests.process import run
from tests.prompts import Prompting, Told, prompting
from tests.support import SOON_S, eventually

WORDS = "one two three four"
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_older_proxy_s_examples_work_as_written(tmp_path: Path) -> None:
    """Its README, with curl, but for the port."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        base = f"{at.mirror.url}/api/v1"

        async def curl(*arguments: str) -> Any:
            ended = await run("curl", "-sS", *arguments)
            assert ended.code == 0, ended.err
            return json.loads(ended.out)

        at.ollama.pace.hold()
        body = '{"prompt": "What is the capital of France?"}'
        made = await curl("-X", "POST", f"{base}/prompt", "-H", "Content-Type: application/json", "-d", body)
        id_ = made.pop("id")
        assert (made, len(id_)) == ({}, 36)
        await me.until(id_, "processing")
        assert await curl(f"{base}/prompt/{id_}/status") == {"id": id_, "status": "processing"}
        assert await curl(f"{base}/prompt/{id_}/result") == {"id": id_, "status": "processing"}
        at.ollama.pace.release(100)
        await me.until(id_, "completed")
        assert await curl(f"{base}/prompt/{id_}/status") == {"id": id_, "status": "completed"}
        assert await curl(f"{base}/prompt/{id_}/result") == {"id": id_, "status": "completed", "result": WORDS}
        listed = await curl(f"{base}/prompts?page=1&page_size=5")
        (row,) = listed.pop("prompts")
        assert listed == {"page": 1, "page_size": 5, "total": 1, "total_pages": 1}
        assert list(row) == ["id", "status", "created_at", "updated_at"]
        assert (row["id"], row["status"]) == (id_, "completed")
        assert re.fullmatch(INSTANT, row["created_at"])
        assert re.fullmatch(INSTANT, row["updated_at"])
        sent = json.loads(at.ollama.troubles.of("/api/generate")[0].body)
        assert sent == {"model": "m", "prompt": "What is the capital of France?", "stream": True}


async def test_messages_options_and_models_reach_the_ollama(tmp_path: Path) -> None:
    """Also by an alias, and what is HTML stays text."""
    async with prompting(tmp_path, dispatch__aliases={"fast": "m"}) as (at, me), asyncio.timeout(SOON_S):
        html = "<script>alert(1)</script>"
        status, said = await me.post({"messages": [{"role": "user", "content": html}], "options": {"seed": 7}})
        assert (status, (await me.until(said["id"], "completed"))["result"]) == (200, WORDS)
        assert json.loads(at.ollama.troubles.of("/api/chat")[0].body) == {
            "model": "m",
            "messages": [{"role": "user", "content": html}],
            "options": {"seed": 7},
            "stream": True,
        }
        await me.until(await me.submit(model="FAST"), "completed")
        assert json.loads(at.ollama.troubles.of("/api/generate")[0].body)["model"] == "m"


async def test_the_list_is_paged_and_the_newest_comes_first(tmp_path: Path) -> None:
    """Five to a page; a page that there is not is the nearest one."""
    async with prompting(tmp_path) as (_, me), asyncio.timeout(SOON_S):
        assert await me.get("prompts") == (
            200,
            {"prompts": [], "page": 1, "page_size": 5, "total": 0, "total_pages": 1},
        )
        ids = [await me.submit(str(number)) for number in range(7)]
        for query, page, found in (
            ("", 1, ids[:1:-1]),
            ("?page=2", 2, ids[1::-1]),
            ("?page=0", 1, ids[:1:-1]),
            ("?page=-1", 1, ids[:1:-1]),
            (f"?page={10**9}", 2, ids[1::-1]),
            (f"?page={10**30}&page_size=3", 3, ids[:1]),
            ("?page_size=0", 1, ids[-1:]),
            ("?page_size=100000", 1, ids[::-1]),
        ):
            status, said = await me.get(f"prompts{query}")
            assert (status, said["page"], [one["id"] for one in said["prompts"]]) == (200, page, found), query
        for query in ("page=x", "page=1.5", f"page_size={'9' * 5000}"):
            status, said = await me.get(f"prompts?{query}")
            assert (status, "a whole number" in said["error"]) == (400, True)


async def test_bad_input_is_refused_in_ollama_s_shape(tmp_path: Path) -> None:
    """And nothing is queued."""
    async with prompting(tmp_path, proxy__max_body=2048, prompts__max_queued=1) as (at, me):
        for body, status in (
            (b"", 400),
            (b"{", 400),
            (b"[1]", 400),
            (b"\xff\xfe", 400),
            (b"[" * 2000, 400),
            (b'{"prompt": 1}', 400),
            (b'{"prompt": "x", "model": "a b"}', 400),
            (b'{"prompt": "%s"}' % (b"x" * 4000), 413),
        ):
            got, said = await me.post(body)
            assert (got, list(said)) == (status, ["error"]), body[:40]
        me.headers["Idempotency_Key"] = "k" * 201
        assert (await me.post({"prompt": "x"}))[0] == 400
        del me.headers["Idempotency_Key"]
        for path in ("nothing/status", "nothing/result", "nothing/events", "%2e%2e/status", f"{'x' * 3000}/status"):
            status, said = await me.get(f"prompt/{path}")
            assert (status, list(said)) == (404, ["error"]), path
        assert (await me.get("prompt/nothing", method="DELETE"))[0] == 404
        assert (await me.get("prompts"))[1]["total"] == 0
        at.ollama.pace.hold()
        await me.submit()
        status, said = await me.post({"prompt": "one too many"})
        assert (status, "prompts.max_queued" in said["error"]) == (429, True)


async def test_texts_that_no_database_takes_are_kept(tmp_path: Path) -> None:
    """Half a surrogate pair, and a zero byte."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.words = ("\ud800", "a\0b")
        id_ = await me.submit("\ud800 \0")
        assert (await me.until(id_, "completed"))["result"] == "\ud800a\0b"
        assert json.loads(at.ollama.troubles.of("/api/generate")[0].body)["prompt"] == "\ud800 \0"


async def test_the_same_key_is_the_same_prompt_for_the_same_user(tmp_path: Path) -> None:
    """A client that is not sure whether it was heard asks again."""
    async with prompting(tmp_path) as (_, me):
        me.headers = {"Idempotency_Key": "a", "X_User_ID": "ann"}
        first = await me.submit()
        assert await me.submit() == first
        me.headers["X_User_ID"] = "bob"
        assert await me.submit() != first
        me.headers = {"Idempotency_Key": "b", "X_User_ID": "ann"}
        assert await me.submit() != first


async def test_what_may_pass_is_tried_again_and_what_may_not_fails(tmp_path: Path) -> None:
    """A runner that stops, an answer that breaks off, a model that is not there, and one too many failures."""
    async with prompting(tmp_path, prompts__tries=3, dispatch__max_failures=100) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.troubles.add(Trouble.STATUS, "/api/generate", status=500)
        at.ollama.troubles.add(Trouble.CUT, "/api/generate", after=2)
        assert (await me.until(await me.submit(), "completed"))["result"] == WORDS
        assert len(at.ollama.troubles.of("/api/generate")) == 3
        at.ollama.troubles.add(Trouble.ERROR, "/api/generate", after=1, times=3)
        said = await me.until(await me.submit(), "failed")
        assert said["error"] == "the runner has stopped"
        assert len(at.ollama.troubles.of("/api/generate")) == 6
        said = await me.until(await me.submit(model="nope"), "failed")
        assert "model 'nope' not found" in said["error"]
        assert len(at.ollama.troubles.of("/api/generate")) == 7
        at.ollama.troubles.add(Trouble.STATUS, "/api/generate", status=400)
        assert (await me.until(await me.submit(), "failed"))["error"] == "the runner has stopped"
        assert len(at.ollama.troubles.of("/api/generate")) == 8


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"response": "half", "done": false}\n', "ended before it was done"),
        (b"<html>", "no JSON object"),
        (b"", "ended before it was done"),
    ],
)
async def test_what_ends_without_an_end_is_no_answer(body: bytes, error: str, tmp_path: Path) -> None:
    """Of an Ollama that is none, or that was stopped in good order."""
    said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    async with answering(said) as (url, _), prompting(tmp_path, prompts__tries=2, backend=url) as (_, me):
        async with asyncio.timeout(SOON_S):
            assert error in (await me.until(await me.submit(), "failed"))["error"]


async def test_waiting_for_a_turn_is_no_try(tmp_path: Path) -> None:
    """However often it is in vain, or its user blocked meanwhile."""
    async with prompting(tmp_path, prompts__tries=1, dispatch__timeout=0.05) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        me.headers["X_User_ID"] = "ann"
        first, second = await me.submit(), await me.submit()

        async def has_waited() -> bool:
            found = await at.mirror.parts.prompting.prompts.find(second)
            return found is not None and "dispatch.timeout" in (found.error or "")

        await eventually(has_waited)
        assert [await me.status(one) for one in (first, second)] == ["processing", "queued"]
        at.ollama.pace.release(100)
        for one in (first, second):
            assert (await me.until(one, "completed"))["result"] == WORDS
        at.mirror.parts.turns.block("ann")
        third = await me.submit()

        async def has_been_refused() -> bool:
            found = await at.mirror.parts.prompting.prompts.find(third)
            return found is not None and found.not_before is not None

        await eventually(has_been_refused)
        assert await me.get(f"prompt/{third}/result") == (200, {"id": third, "status": "queued"})


async def test_without_an_ollama_it_fails_in_the_end(tmp_path: Path) -> None:
    """And says why."""
    async with prompting(tmp_path, prompts__tries=2, backend=NOBODY) as (_, me), asyncio.timeout(SOON_S):
        assert "127.0.0.1:9" in (await me.until(await me.submit(), "failed"))["error"]


async def test_a_deadline_ends_what_waits_and_what_runs(tmp_path: Path) -> None:
    """With what it is about as the error."""
    async with prompting(tmp_path, prompts__at_once=1) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        runs = await me.submit()
        late = await me.submit(deadline="2020-01-01T00:00:00Z")
        assert (await me.until(late, "failed"))["error"] == "its deadline has gone by"
        assert await me.status(runs) == "processing"
        soon = (datetime.now(UTC) + timedelta(milliseconds=200)).isoformat()
        me.headers["X_User_ID"] = "ann"
        assert (await me.until(await me.submit(deadline=soon), "failed"))["error"] == "its deadline has gone by"
        await me.get(f"prompt/{runs}", method="DELETE")
        soon = (datetime.now(UTC) + timedelta(milliseconds=200)).isoformat()
        assert (await me.until(await me.submit(deadline=soon), "failed"))["error"] == "its deadline has gone by"
        await at.ollama.troubles.wait_for(lambda: all(one.left for one in at.ollama.troubles.of("/api/generate")))


async def test_cancelling_stops_the_generation_and_forgetting_comes_after(tmp_path: Path) -> None:
    """One that waits never reaches an Ollama."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        runs, waits = await me.submit(), await me.submit()
        await me.until(runs, "processing")
        await at.ollama.troubles.wait_for(lambda: bool(at.ollama.troubles.of("/api/generate")))
        for one in (waits, runs):
            assert await me.get(f"prompt/{one}", method="DELETE") == (200, {"id": one, "status": "cancelled"})
        await at.ollama.troubles.wait_for(lambda: at.ollama.troubles.of("/api/generate")[0].left)
        assert [await me.status(one) for one in (runs, waits)] == ["cancelled", "cancelled"]
        at.ollama.pace.release(100)
        await me.until(await me.submit(), "completed")
        assert len(at.ollama.troubles.of("/api/generate")) == 2
        assert (await me.get(f"prompt/{runs}", method="DELETE"))[0] == 200
        assert (await me.get(f"prompt/{runs}/status"))[0] == 404
        assert len(at.mirror.parts.prompting.lives) == 0


async def test_nobody_waits_behind_another_s_prompts(tmp_path: Path) -> None:
    """Bob has asked for many; Ann's is next when his first is done. His own go by priority, then by age."""
    async with prompting(tmp_path, prompts__at_once=1) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        me.headers["X_User_ID"] = "bob"
        first = await me.submit("bob 0")
        await me.until(first, "processing")
        bobs = [await me.submit(f"bob {number}", priority=number // 3) for number in range(1, 4)]
        ann = await Prompting(at.client, {"X_User_ID": "ann"}).submit("ann")

        async def ann_waits() -> bool:
            return at.mirror.parts.turns.waiting == 1

        await eventually(ann_waits)
        at.ollama.pace.release(100)
        for one in (ann, *bobs):
            await me.until(one, "completed")
        order = [json.loads(one.body)["prompt"] for one in at.ollama.troubles.of("/api/generate")]
        assert order == ["bob 0", "ann", "bob 3", "bob 1", "bob 2"]


async def test_with_keys_a_user_sees_their_own_only(tmp_path: Path) -> None:
    """An admin sees all; a stranger nothing; the policy is asked about the user."""
    ring = Keyring(tmp_path / "state")
    (tmp_path / "state").mkdir()
    keys = {name: ring.add(name, [scope])[1] or "" for name, scope in (("ann", Scope.API), ("bob", Scope.API))}
    keys["root"] = ring.add("root", [Scope.ADMIN, Scope.API])[1] or ""
    async with prompting(tmp_path, security__blocked_models=("secret",)) as (at, me), asyncio.timeout(SOON_S):
        ann, bob, root = (
            Prompting(at.client, {"Authorization": f"Bearer {keys[who]}"}) for who in ("ann", "bob", "root")
        )
        assert (await me.get("prompts"))[0] == 401
        id_ = await ann.submit()
        await ann.until(id_, "completed")
        for path in ("status", "result", "events"):
            assert (await bob.get(f"prompt/{id_}/{path}"))[0] == 404
        assert (await bob.get(f"prompt/{id_}", method="DELETE"))[0] == 404
        totals = [(await one.get("prompts"))[1]["total"] for one in (ann, bob, root)]
        assert totals == [1, 0, 1]
        assert await root.status(id_) == "completed"
        assert (await ann.post({"prompt": "x", "model": "secret"}))[0] == 403


async def test_events_tell_what_was_said_and_go_on_where_a_reader_was(tmp_path: Path) -> None:
    """While it runs, and from the database after it; in the end they say how it ended."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        id_ = await me.submit()
        async with me.reading(id_) as events:
            at.ollama.pace.release(1)
            first = await anext(events)
            at.ollama.pace.release(1)
            second = await anext(events)
            assert (first, second) == (Told("1-3", "", {"text": "one"}), Told("1-7", "", {"text": " two"}))
        async with me.reading(id_, first.id) as events:
            assert await anext(events) == second
            at.ollama.pace.release(100)
            rest = [one async for one in events]
        done = Told("1-18", "completed", {"id": id_, "status": "completed"})
        assert "".join(one.said.get("text", "") for one in rest) == " three four"
        assert rest[-1] == done
        assert await me.events(id_, second.id) == [Told("1-18", "", {"text": " three four"}), done]
        assert await me.events(id_, done.id) == [done]
        for strange in ("", "x", "1-999999999", "7-3"):
            told = await me.events(id_, strange)
            assert told[-1].event == "completed"
        assert [one.event for one in await me.events(id_, "7-3")] == ["restart", "", "completed"]


async def test_a_second_try_starts_the_events_again(tmp_path: Path) -> None:
    """Half of one answer and half of another would be nobody's."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        at.ollama.troubles.add(Trouble.CUT, "/api/generate", after=2)
        at.ollama.pace.hold()
        id_ = await me.submit()
        async with me.reading(id_) as events:
            at.ollama.pace.release(1)
            assert (await anext(events)).said == {"text": "one"}
            at.ollama.pace.release(100)
            rest = [one async for one in events]
        again = next(number for number, one in enumerate(rest) if one.event == "restart")
        assert "".join(one.said.get("text", "") for one in rest[again:]) == WORDS
        assert rest[-1] == Told("2-18", "completed", {"id": id_, "status": "completed"})


async def test_events_end_with_a_failure_or_a_cancellation(tmp_path: Path) -> None:
    """Also of one that never ran."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(SOON_S):
        id_ = await me.submit(model="nope")
        (told,) = await me.events(id_)
        assert (told.event, told.said["status"], "not found" in told.said["error"]) == ("failed", "failed", True)
        at.ollama.pace.hold()
        await me.submit()
        waits = await me.submit()
        async with me.reading(waits) as events:
            await me.get(f"prompt/{waits}", method="DELETE")
            assert [one.event async for one in events] == ["cancelled"]


async def test_a_reader_that_never_reads_holds_up_nothing(tmp_path: Path) -> None:
    """The answer is far larger than what a connection takes."""
    async with prompting(tmp_path) as (at, me), asyncio.timeout(30):
        at.ollama.words = ("x" * 100_000,) * 150
        at.ollama.pace.hold()
        id_ = await me.submit()
        async with me.reading(id_):
            at.ollama.pace.release(1000)
            assert len((await me.until(id_, "completed"))["result"]) == 15_000_000


async def test_pages_of_other_sites_may_where_the_settings_say_so(tmp_path: Path) -> None:
    """As the older proxy let them, once every origin is listed."""
    async with prompting(tmp_path, security__origins=("http://*", "https://*")) as (at, me):
        me.headers["Origin"] = "https://page.example"
        url = at.client.url("/api/v1/prompts")
        async with at.client.session.get(url, headers=me.headers) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://page.example")
        asking = {**me.headers, "Access-Control-Request-Method": "POST"}
        async with at.client.session.options(at.client.url("/api/v1/prompt"), headers=asking) as answer:
            assert answer.status == 204


async def test_without_prompts_the_paths_are_none(tmp_path: Path) -> None:
    """As for an Ollama."""
    async with prompting(tmp_path, prompts__enabled=False) as (_, me):
        assert (await me.post({"prompt": "x"}))[0] == 404
