"""The mirror's own client of an Ollama's API, and how it finds the Ollama that stands behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.config import ProxySettings
from mirror.errors import BackendDown, BackendError, BackendRefused
from mirror.ollama import Backend, Behind, Ollama, Progress
from mirror.values import Digest
from tests.access import Clock
from tests.behind import NOBODY
from tests.fakes.ollama import FakeOllama, running_fake_ollama
from tests.fakes.ollama_trouble import Trouble
from tests.fakes.registry import running_fake_registry
from tests.net import answering, listening
from tests.support import SOON_S, add_blob


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Ollama]:
    """A client of the Ollama at ``url``."""
    backend = Backend(url, 2.0)
    try:
        yield Ollama(backend)
    finally:
        await backend.close()


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[tuple[FakeOllama, Ollama]]:
    """A fake Ollama that holds the model ``m``, and a client of it."""
    async with running_fake_ollama(folder) as fake, client_of(fake.url) as client:
        fake.folder.add("m", template="{{ .Prompt }}")
        yield fake, client


async def test_what_it_holds_and_what_it_says_of_it(tmp_path: Path) -> None:
    """A delivery looks at these to know what is there already, and by which digest."""
    async with talking(tmp_path) as (fake, client):
        manifest = fake.folder.manifest(fake.folder.names()[0]).read_bytes()
        assert await client.version() == "0.33.0"
        (row,) = await client.models()
        assert (row.name, row.digest, row.details["family"]) == ("m:latest", Digest.of(manifest).hex, "llama")
        assert await client.running() == []
        assert (await client.show("m"))["template"] == "{{ .Prompt }}"


async def test_a_copy_is_free_and_a_delete_takes_what_nothing_names(tmp_path: Path) -> None:
    """So a model that was pulled under a long name gets its plain one, and no blob twice."""
    async with talking(tmp_path) as (fake, client):
        before = fake.folder.blobs
        await client.copy("m", "plain")
        await client.delete("m")
        assert (fake.folder.blobs, [one.name for one in await client.models()]) == (before, ["plain:latest"])
        await client.delete("plain")
        assert (fake.folder.blobs, await client.models()) == (set(), [])


async def test_a_pull_tells_of_itself_line_by_line(tmp_path: Path) -> None:
    """The lines are what a queue shows to people, and the end without an error is success."""
    async with running_fake_registry(redirects=False) as registry, talking(tmp_path) as (fake, client):
        add_blob(registry, 100_000)
        name = f"{registry.url.removeprefix('http://')}/library/m"
        with pytest.raises(BackendRefused, match="http: no Location header in response"):
            async with client.pull(name, insecure=True) as steps:
                assert [step async for step in steps]
    async with running_fake_registry() as registry, talking(tmp_path) as (fake, client):
        _, digest = add_blob(registry, 100_000)
        name = f"{registry.url.removeprefix('http://')}/library/m"
        async with client.pull(name, insecure=True) as steps:
            told = [step async for step in steps]
        assert told[0] == Progress(status="pulling manifest")
        whole = Progress(status=f"pulling {digest.hex[:12]}", digest=str(digest), total=100_000, completed=100_000)
        assert whole in told
        assert told[-1].view() == {"status": "success"}
        assert digest.filename in fake.folder.blobs


async def test_blobs_go_in_as_they_come_and_are_hashed_there(tmp_path: Path) -> None:
    """A digest that is not the content's is refused with Ollama's text, and nothing is kept."""

    async def content() -> AsyncIterator[bytes]:
        yield b"wei"
        yield b"ghts!"

    async with talking(tmp_path) as (fake, client):
        right, wrong = Digest.of(b"weights!"), Digest.of(b"other")
        assert not await client.has_blob(right)
        await client.put_blob(right, 8, content())
        assert await client.has_blob(right)
        with pytest.raises(BackendRefused, match="digest mismatch") as refused:
            await client.put_blob(wrong, 8, content())
        assert (refused.value.status, wrong.filename in fake.folder.blobs) == (400, False)


async def test_words_come_one_by_one(tmp_path: Path) -> None:
    """The second is not said when the first is here; who leaves ends the request."""
    async with talking(tmp_path) as (fake, client), asyncio.timeout(SOON_S):
        fake.pace.hold()
        fake.pace.release()
        async with client.generate({"model": "m", "prompt": "say"}) as lines:
            assert (await anext(lines))["response"] == "one"
            assert fake.pace.said == 1
        await fake.troubles.wait_for(lambda: fake.asked[0].left)
        fake.pace.release(10)
        async with client.chat({"model": "m", "messages": []}) as lines:
            assert [line["done"] async for line in lines] == [False, False, False, False, True]
        assert await client.embed("m", ["a", "bc"]) == [[1.0, 0.5], [2.0, 0.5]]


async def test_an_error_among_the_lines_is_an_error(tmp_path: Path) -> None:
    """The status went out before: a client that looks only at it takes a failure for an answer."""
    async with talking(tmp_path) as (fake, client):
        fake.troubles.add(Trouble.ERROR, "/api/chat", after=2)
        async with client.chat({"model": "m"}) as lines:
            assert [(await anext(lines))["done"], (await anext(lines))["done"]] == [False, False]
            with pytest.raises(BackendRefused, match="the runner has stopped") as refused:
                await anext(lines)
        assert refused.value.status == 200
        fake.troubles.add(Trouble.CUT, "/api/chat", after=1)
        with pytest.raises(BackendDown, match="does not answer"):
            async with client.chat({"model": "m"}) as lines:
                _ = [line async for line in lines]


async def test_refusals_have_ollama_s_status_and_text(tmp_path: Path) -> None:
    """A delivery tells a model that is not there from an Ollama that is in trouble."""
    async with talking(tmp_path) as (fake, client):
        with pytest.raises(BackendRefused, match="model 'nope:latest' not found") as refused:
            await client.show("nope")
        assert refused.value.status == 404
        fake.troubles.add(Trouble.STATUS, status=503)
        with pytest.raises(BackendRefused, match="the runner has stopped") as refused:
            await client.models()
        assert refused.value.status == 503


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.version(),
        lambda client: client.copy("a", "b"),
        lambda client: client.has_blob(Digest.of(b"")),
    ],
)
async def test_nobody_there_is_found_at_once(ask: Callable[[Ollama], Coroutine[Any, Any, object]]) -> None:
    """And is an error of its own: what waits for the Ollama to come back tries again on it."""
    async with client_of(NOBODY) as client, asyncio.timeout(SOON_S):
        with pytest.raises(BackendDown, match="does not answer") as down:
            await ask(client)
        assert not down.value.permanent


async def test_a_server_that_is_reset_before_it_answers_is_down() -> None:
    """As an Ollama is that is killed meanwhile."""

    async def hang_up(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with listening(hang_up) as port, client_of(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(BackendDown):
            await client.version()


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b'{"models": 5}',
        b'{"models": [{}]}',
        b'{"models": [{"name": "m", "digest": "", "size": 1e999}]}',
        b'{"models": [5]}',
        b"[" * 99999,
    ],
)
async def test_what_is_no_ollama_is_said_to_be_none(body: bytes) -> None:
    """A URL set wrongly leads to somebody else's page."""
    async with answering(_answer(body)) as (url, _), client_of(url) as client:
        with pytest.raises(BackendError, match=r"no Ollama|none of Ollama's"):
            await client.models()


async def test_lines_may_be_long_but_not_without_end() -> None:
    """Eight megabytes are what Ollama's own client takes; a server without line breaks must not fill our memory."""
    long = json.dumps({"response": "x" * 7_000_000}).encode() + b"\n"
    async with answering(_answer(long + b'{"done": true}')) as (url, _), client_of(url) as client:
        answer = client.generate({})
        async with answer as lines:
            assert [len(line.get("response", "")) async for line in lines] == [7_000_000, 0]
    async with answering(_answer(b"x" * 9_000_000)) as (url, _), client_of(url) as client:
        with pytest.raises(BackendError, match="a line of more than"):
            async with client.generate({}) as lines:
                await anext(lines)
    async with answering(_answer(b"nonsense\n")) as (url, _), client_of(url) as client:
        with pytest.raises(BackendError, match="no JSON object: nonsense"):
            async with client.generate({}) as lines:
                await anext(lines)


async def test_auto_finds_an_ollama_that_comes_and_forgets_one_that_goes(tmp_path: Path) -> None:
    """Nobody should have to start two programs in order; and it is not asked about with every request."""
    clock = Clock()
    async with running_fake_ollama(tmp_path) as fake:
        behind = Behind(ProxySettings(), auto_url=fake.url, clock=clock)
        try:
            assert await behind.backend() is not None
            await fake.down()
            assert await behind.backend() is not None, "it is not asked again yet"
            clock.at += 6
            assert await behind.backend() is None
            await fake.up()
            assert await behind.backend() is None
            clock.at += 6
            assert await behind.backend() is not None
            assert len(fake.asked) == 2
        finally:
            await behind.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 404 No\r\n\r\n", b"SSH-2.0\r\n"]
)
async def test_auto_takes_nothing_for_an_ollama_that_is_none(answer: bytes) -> None:
    """Whatever else may listen on that port."""
    async with answering(answer) as (url, _):
        behind = Behind(ProxySettings(), auto_url=url)
        try:
            assert await behind.backend() is None
        finally:
            await behind.close()


async def test_none_is_none_and_a_url_is_that_one() -> None:
    """A backend that was named is asked whether it answers or not: a 502 says more than an empty list."""
    none, named = Behind(ProxySettings(backend="none")), Behind(ProxySettings(backend=NOBODY))
    try:
        assert await none.backend() is None
        found = await named.backend()
        assert found is not None
        assert found.url == NOBODY
    finally:
        await none.close()
        await named.close()
