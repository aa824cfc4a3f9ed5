"""What passes through to the Ollama behind: both ways as it comes, and never half an answer for a whole one."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil  # type: ignore[import-untyped]  # the stubs are not installed
import pytest

from tests.behind import asked, fronted, lines_of
from tests.fakes.ollama_trouble import Trouble
from tests.net import answering, listening
from tests.process import serving
from tests.support import SOON_S, Machine, machine

CHAT = {"model": "m", "messages": [{"role": "user", "content": "say"}]}


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions"])
async def test_a_word_arrives_before_the_next_one_is_said(path: str, tmp_path: Path) -> None:
    """Whoever waits for an answer reads along; a proxy that gathers lines makes a slow model look dead."""
    async with fronted(tmp_path) as at, asyncio.timeout(SOON_S):
        at.ollama.pace.hold()
        at.ollama.pace.release()
        async with at.client.session.post(at.client.url(path), json={**CHAT, "stream": True}) as answer:
            assert answer.headers["X-Accel-Buffering"] == "no"
            assert b"one" in await answer.content.readline()
            assert at.ollama.pace.said == 1
            at.ollama.pace.release(10)
            rest = await answer.content.read()
    assert rest.index(b"two") < rest.index(b"three") < rest.index(b"four")


async def test_an_answer_may_take_its_time_and_is_given_up_when_the_client_leaves(tmp_path: Path) -> None:
    """A cold model is silent for minutes; one that nobody waits for any more must not go on being worked out."""
    async with fronted(tmp_path) as at, asyncio.timeout(SOON_S):
        at.ollama.troubles.add(Trouble.HOLD, "/api/chat")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(at.json("/api/chat", CHAT))
            await at.ollama.troubles.wait_for(lambda: bool(at.ollama.troubles.of("/api/chat")))
            waiting.cancel()
        await at.ollama.troubles.wait_for(lambda: at.ollama.asked[0].left)
        at.ollama.pace.hold()
        at.ollama.pace.release()
        async with at.client.session.post(at.client.url("/api/chat"), json=CHAT) as answer:
            await answer.content.readline()
        await at.ollama.troubles.wait_for(lambda: at.ollama.asked[1].left)
        assert at.ollama.pace.said == 1


async def test_a_backend_that_is_down_is_said_at_once_on_every_face(tmp_path: Path) -> None:
    """In the shape that each face's clients show to their users; and it is found again when it is back."""
    async with fronted(tmp_path) as at, asyncio.timeout(SOON_S):
        await at.ollama.down()
        status, native = await at.json("/api/chat", CHAT)
        assert (status, "does not answer" in native["error"]) == (502, True)
        status, openai = await at.json("/v1/chat/completions", CHAT)
        assert (status, openai["error"]["type"]) == (502, "api_error")
        status, anthropic = await at.json("/v1/messages", CHAT)
        assert (status, anthropic["type"], anthropic["error"]["type"]) == (502, "error", "api_error")
        await at.ollama.up()
        assert (await at.json("/api/chat", CHAT))[0] == 200


async def test_a_backend_that_ends_before_its_answer_is_down(tmp_path: Path) -> None:
    """As when it is killed while it loads a model."""

    async def hang_up(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with listening(hang_up) as port, fronted(tmp_path, backend=f"http://127.0.0.1:{port}") as at:
        assert (await at.json("/api/chat", CHAT))[0] == 502


async def test_lines_that_break_off_end_with_an_error_line(tmp_path: Path) -> None:
    """And without the end that a whole answer has: some clients look at lines, others at the end of the stream."""
    async with fronted(tmp_path) as at:
        at.ollama.troubles.add(Trouble.CUT, "/api/chat", after=2)
        async with at.client.session.post(at.client.url("/api/chat"), json=CHAT) as answer:
            lines = [json.loads(await answer.content.readline()) for _ in range(3)]
            assert (answer.status, "does not answer" in lines[2]["error"]) == (200, True)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        at.ollama.troubles.add(Trouble.ERROR, "/api/chat", after=1)
        assert (await at.json("/api/chat", CHAT))[1][1:] == [{"error": "the runner has stopped"}]


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n",
        b'Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"res\r\n',
        b'Content-Type: application/x-ndjson\r\nContent-Length: 9\r\n\r\n{"a":1}\n',
        b'Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"a"',
    ],
)
async def test_any_other_answer_that_breaks_off_is_cut(answer: bytes, tmp_path: Path) -> None:
    """A clean end would have half an event, half a line or half an object taken for all of it."""
    async with (
        answering(b"HTTP/1.1 200 OK\r\n" + answer) as (url, _),
        fronted(tmp_path, backend=url) as at,
        at.client.session.post(at.client.url("/api/chat"), json=CHAT) as came,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            await came.read()


async def test_statuses_and_error_texts_are_the_backend_s_own(tmp_path: Path) -> None:
    """Clients decide by them: a 404 makes ``ollama run`` pull, a 503 makes programs wait."""
    async with fronted(tmp_path) as at:
        assert await at.json("/api/generate", {"model": "nope"}) == (404, {"error": "model 'nope' not found"})
        at.ollama.troubles.add(Trouble.STATUS, "/api/chat", status=503)
        assert await at.json("/api/chat", CHAT) == (503, {"error": "the runner has stopped"})
        assert await at.json("/api/delete", {"model": "m"}, method="DELETE") == (200, "")


async def test_a_redirect_is_handed_back(tmp_path: Path) -> None:
    """Who follows one must be the client, or the mirror would fetch from wherever a backend says."""
    said = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://10.9.9.9/\r\nContent-Length: 0\r\n\r\n"
    async with answering(said) as (url, heads), fronted(tmp_path, backend=url) as at:
        answer = await at.client.get("/api/tags")
        assert (answer.status, answer.headers["Location"], len(heads)) == (307, "http://10.9.9.9/", 1)


async def test_headers_of_one_hop_stay_there_both_ways(tmp_path: Path) -> None:
    """RFC 9110 §7.6.1; and a key of the mirror's, its own host name and a page's origin are not the backend's."""
    said = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Private, close\r\nX-Private: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-Kept: yes\r\n\r\n{}"
    )
    async with answering(said) as (url, heads), fronted(tmp_path, backend=url) as at:
        answer = await at.client.get(
            "/api/tags",
            Connection="X-Mine, keep-alive",
            X_Mine="1",
            TE="trailers",
            Proxy_Authorization="Basic x",
            Upgrade="h2c",
            Authorization="Bearer word",
            Origin="http://localhost:3000",
            X_Forwarded_For="10.1.1.1",
            X_Other="kept",
            User_Agent="test/1",
        )
    sent = {line.split(b":")[0].lower(): line.partition(b": ")[2] for line in heads[0].split(b"\r\n")[1:] if line}
    assert {b"x-mine", b"te", b"proxy-authorization", b"upgrade", b"authorization", b"origin"}.isdisjoint(sent)
    assert (sent[b"host"].decode(), sent[b"x-forwarded-for"]) == (url.removeprefix("http://"), b"10.1.1.1, 127.0.0.1")
    assert (sent[b"x-other"], sent[b"user-agent"], sent[b"via"][:8]) == (b"kept", b"test/1", b"1.1 olla")
    assert {"X-Private", "Keep-Alive", "Proxy-Authenticate"}.isdisjoint(answer.headers)
    assert (answer.headers["X-Kept"], answer.headers["Content-Length"]) == ("yes", "2")
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


async def test_head_has_the_length_and_no_body(tmp_path: Path) -> None:
    """``ollama`` asks so whether its server is alive, and whether a blob is there."""
    async with fronted(tmp_path) as at:
        there = f"/api/blobs/{next(iter(at.ollama.folder.blobs))}"
        assert (await at.client.get(there, method="HEAD")).status == 200
        assert (await at.client.get(f"/api/blobs/sha256:{'0' * 64}", method="HEAD")).status == 404
        whole = await at.client.get("/api/tags")
        head = await at.client.get("/api/tags", method="HEAD")
        assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(whole.body)))


async def test_a_compressed_body_goes_on_as_it_came(tmp_path: Path) -> None:
    """OpenAI's own programs send zstd, which the Ollama behind reads; nobody on the way has to."""
    async with fronted(tmp_path) as at:
        body = b"\x28\xb5\x2f\xfd\x04\x00not unpacked"
        await asked(at.client, "/v1/embeddings", body, Content_Encoding="zstd")
        came = at.ollama.asked[0]
        assert (came.headers["Content-Encoding"], came.headers["Content-Length"]) == ("zstd", str(len(body)))


async def test_who_waits_to_be_asked_for_its_body_is_asked_by_a_backend_that_is_there(tmp_path: Path) -> None:
    """Expect: 100-continue (RFC 9110 §10.1.1): tens of GB are not sent to somebody who refuses them."""
    head = "POST /api/blobs/sha256:{} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"

    async def ask(client: Machine, digest: str) -> tuple[bytes, bytes]:
        url = client.url("/")
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(head.format(digest).encode())
        first = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"abc")
        rest = await reader.readuntil(b"\r\n\r\n") if b" 100 " in first else b""
        writer.close()
        return first, rest

    digest = hashlib.sha256(b"abc").hexdigest()
    async with fronted(tmp_path) as at, asyncio.timeout(SOON_S):
        first, rest = await ask(at.client, digest)
        assert (first, rest[:12]) == (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 201")
        await at.ollama.down()
        assert (await ask(at.client, digest))[0].startswith(b"HTTP/1.1 502")


async def test_a_backend_that_refuses_a_large_body_is_heard(tmp_path: Path) -> None:
    """It ends the connection after its answer, which would be lost while the body is still being sent."""
    refusal = b'HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"error":"no"}'
    async with answering(refusal) as (url, heads), fronted(tmp_path, backend=url) as at:
        assert await at.json("/api/blobs/nope", b"x" * 4_000_000) == (400, {"error": "no"})
        assert b"Expect: 100-continue" in heads[0]
        assert await at.json("/api/show", b"{}") == (400, {"error": "no"})
        assert b"Expect" not in heads[1]


async def test_a_large_blob_goes_through_in_little_memory(tmp_path: Path) -> None:
    """``ollama create`` of a GGUF sends tens of GB; what the mirror needs for it must not depend on how many."""
    piece, count = bytes(range(256)) * 4096, 200

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield piece

    hasher = hashlib.sha256()
    for _ in range(count):
        hasher.update(piece)
    async with fronted(tmp_path) as at:
        store = tmp_path / "front" / "store"
        store.parent.mkdir()
        environment = {"OLLAMA_BACKEND": at.ollama.url}
        async with serving(store, at.registry.url, env=environment) as (url, process), machine(url) as client:
            await client.get("/api/tags")
            meter = psutil.Process(process.pid)
            before = meter.memory_info().rss
            path = f"/api/blobs/sha256:{hasher.hexdigest()}"
            async with client.session.post(client.url(path), data=pieces()) as answer:
                assert answer.status == 201
            assert meter.memory_info().rss - before < 30 << 20
    assert (tmp_path / "ollama" / "blobs" / f"sha256-{hasher.hexdigest()}").stat().st_size == count * len(piece)


async def test_an_upload_that_breaks_off_is_none(tmp_path: Path) -> None:
    """A clean end of half a body would be for the backend to find out, or not at all."""
    async with fronted(tmp_path) as at, asyncio.timeout(SOON_S):
        url = at.client.url("/")
        _, writer = await asyncio.open_connection(url.host, url.port)
        path = f"/api/blobs/sha256:{hashlib.sha256(b'abc').hexdigest()}"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode())
        await at.ollama.troubles.wait_for(lambda: bool(at.ollama.asked))
        writer.transport.abort()
        await at.ollama.troubles.wait_for(lambda: at.ollama.asked[0].left)
        assert not any(name.endswith(hashlib.sha256(b"abc").hexdigest()) for name in at.ollama.folder.blobs)


async def test_a_backend_that_is_the_mirror_itself_is_found_out(tmp_path: Path) -> None:
    """A port set wrongly would else have a request ask itself until every connection is used up."""
    own: list[int | None] = []

    async def back(head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader, there = await asyncio.open_connection("127.0.0.1", own[0])
        there.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        writer.write(await reader.read())
        there.close()

    async with listening(back) as port, fronted(tmp_path, backend=f"http://127.0.0.1:{port}") as at:
        own.append(at.client.url("/").port)
        answer = await at.client.get("/api/tags")
        assert (answer.status, b"is this mirror" in answer.body) == (508, True)


async def test_an_ollama_that_was_started_anew_costs_nobody_a_request(tmp_path: Path) -> None:
    """Connections are kept for the next request; one that has been closed meanwhile is no failure."""
    async with fronted(tmp_path) as at:
        for _ in range(3):
            assert (await at.json("/api/chat", {**CHAT, "stream": False}))[0] == 200
            await at.ollama.down()
            await at.ollama.up()


async def test_every_line_of_a_long_answer_is_there(tmp_path: Path) -> None:
    """Nothing is lost or doubled between two buffers."""
    async with fronted(tmp_path) as at:
        at.ollama.words = tuple(f"word {number} " + "x" * (number % 700) for number in range(3000))
        async with at.client.session.post(at.client.url("/api/chat"), json=CHAT) as answer:
            said = [line["message"]["content"] async for line in lines_of(answer)]
        assert tuple(said[:-1]) == at.ollama.words
        assert json.loads(at.ollama.asked[0].body) == CHAT
