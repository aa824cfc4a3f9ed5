"""The programs that people use: the clients of PyPI through the mirror, with an Ollama behind it and without."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from mirror.demo.model import MODEL_TYPE
from tests.behind import Fronted, fronted
from tests.support import noise

TEXT = "one two three four"
LICENSE = "application/vnd.ollama.image.license"


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[ollama.AsyncClient]:
    """Ollama's own client for async programs."""
    client = ollama.AsyncClient(host=url)
    try:
        yield client
    finally:
        await client.close()  # type: ignore[no-untyped-call]  # its authors left it so


@contextmanager
def plain_client_of(url: str) -> Iterator[ollama.Client]:
    """Ollama's own client for other programs."""
    client = ollama.Client(host=url)
    try:
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call]  # its authors left it so


def add(at: Fronted, size: int = 300_000) -> None:
    """Have the registry hold the model ``far``."""
    at.registry.add_model("library/far:latest", {MODEL_TYPE: noise(size), LICENSE: b"MIT License"})


async def test_ollama_s_async_client_does_everything_through_the_mirror(tmp_path: Path) -> None:
    """List, show, copy, delete, generate, chat and embed are what every program that uses it does."""
    async with fronted(tmp_path) as at, client_of(at.mirror.url) as client:
        assert [one.model for one in (await client.list()).models] == ["m:latest"]
        shown = await client.show("m")
        assert (shown.template, shown.license) == ("{{ .Prompt }}", "MIT License")
        await client.copy("m", "copied")
        assert {one.model for one in (await client.list()).models} == {"m:latest", "copied:latest"}
        await client.delete("copied")
        assert [one.model for one in (await client.list()).models] == ["m:latest"]
        assert (await client.generate("m", "say")).response == TEXT
        assert (await client.chat("m", [{"role": "user", "content": "say"}])).message.content == TEXT
        said = [part.message.content async for part in await client.chat("m", [], stream=True)]
        assert said == ["one", " two", " three", " four", ""]
        assert (await client.embed("m", ["a", "bcd"])).embeddings == [[1.0, 0.5], [3.0, 0.5]]
        assert (await client.ps()).models == []
        with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as refused:
            await client.generate("nope", "say")
        assert refused.value.status_code == 404


async def test_ollama_s_plain_client_streams_through_the_mirror(tmp_path: Path) -> None:
    """It is another HTTP stack's other half: one that blocks."""

    def use(url: str) -> tuple[str, list[str | None], list[Any]]:
        with plain_client_of(url) as client:
            text = "".join(part.response or "" for part in client.generate("m", "say", stream=True))
            listed = [one.model for one in client.list().models]
            digest = client.create_blob(__file__)
            return text, listed, [client.embed("m", "abc").embeddings, digest]

    async with fronted(tmp_path) as at:
        text, listed, (vectors, digest) = await asyncio.to_thread(use, at.mirror.url)
        assert (text, listed, vectors) == (TEXT, ["m:latest"], [[3.0, 0.5]])
        assert digest.replace(":", "-") in at.ollama.folder.blobs


async def test_a_pull_is_passed_on_and_comes_through_the_mirror(tmp_path: Path) -> None:
    """The Ollama behind pulls by the mirror's own name: two ways through one mirror at once."""
    async with fronted(tmp_path) as at, client_of(at.mirror.url) as client:
        add(at)
        name = f"{at.mirror.url.removeprefix('http://')}/library/far"
        statuses = [part.status async for part in await client.pull(name, insecure=True, stream=True)]
        assert statuses[0] == "pulling manifest"
        assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
        assert f"{name}:latest" in {one.model for one in (await client.list()).models}
        with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist"):
            await client.pull(f"{at.mirror.url.removeprefix('http://')}/library/nope", insecure=True)


async def test_openai_s_clients_talk_through_the_mirror(tmp_path: Path) -> None:
    """Half of all programs know only this API."""

    def use(url: str) -> str | None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="ollama", max_retries=0) as client:
            answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "say"}])
            return answer.choices[0].message.content

    async with fronted(tmp_path) as at:
        assert await asyncio.to_thread(use, at.mirror.url) == TEXT
        async with openai.AsyncOpenAI(base_url=f"{at.mirror.url}/v1", api_key="ollama", max_retries=0) as client:
            assert [one.id async for one in client.models.list()] == ["m:latest"]
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "say"}], stream=True
            )
            assert "".join([event.choices[0].delta.content or "" async for event in stream]) == TEXT
            found = await client.embeddings.create(model="m", input=["abc"], encoding_format="float")
            assert found.data[0].embedding == [3.0, 0.5]
            text = await client.completions.create(model="m", prompt="say")
            assert text.choices[0].text == TEXT
            texts = await client.completions.create(model="m", prompt="say", stream=True)
            assert "".join([event.choices[0].text async for event in texts]) == TEXT
            assert (await client.responses.create(model="m", input="say")).output_text == TEXT
            told = await client.responses.create(model="m", input="say", stream=True)
            deltas = [event.delta async for event in told if event.type == "response.output_text.delta"]
            assert "".join(deltas) == TEXT
            with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
                await client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "say"}])
            await at.ollama.down()
            with pytest.raises(openai.InternalServerError, match="does not answer") as down:
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "say"}])
            assert (down.value.status_code, down.value.type) == (502, "api_error")


async def test_anthropic_s_client_talks_through_the_mirror(tmp_path: Path) -> None:
    """Whole, word by word, and its own errors for what goes wrong on the way."""
    async with fronted(tmp_path, security__blocked_models=["bad"]) as at:
        client = anthropic.AsyncAnthropic(base_url=at.mirror.url, api_key="ollama", max_retries=0)
        async with client:
            said: Any = {"max_tokens": 100, "messages": [{"role": "user", "content": "say"}]}
            answer = await client.messages.create(model="m", **said)
            assert [block.text for block in answer.content if block.type == "text"] == [TEXT]
            async with client.messages.stream(model="m", **said) as stream:
                words = [word async for word in stream.text_stream]
            assert words == ["one", " two", " three", " four"]
            with pytest.raises(anthropic.NotFoundError, match="model 'nope' not found"):
                await client.messages.create(model="nope", **said)
            with pytest.raises(anthropic.PermissionDeniedError, match="blocked_models"):
                await client.messages.create(model="bad", **said)
            await at.ollama.down()
            with pytest.raises(anthropic.InternalServerError, match="does not answer"):
                await client.messages.create(model="m", **said)
        made = {one.user: one.cost for one in at.mirror.parts.turns.users()}
        assert made == {"127.0.0.1": pytest.approx(2 * (4 + 0.3))}


async def test_without_an_ollama_the_same_client_lists_shows_pulls_and_deletes(tmp_path: Path) -> None:
    """A mirror is of use on its own, and says plainly what it cannot do."""
    alone = fronted(tmp_path, backend="none", pulls__mode="now")
    async with alone as at, client_of(at.mirror.url) as client:
        add(at, 3_000_000)
        parts = [part async for part in await client.pull("far", stream=True)]
        assert parts[0].status == "pulling manifest"
        assert [part.status for part in parts[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
        blobs = {part.digest: (part.completed, part.total) for part in parts if part.digest}
        assert all(completed == total for completed, total in blobs.values())
        assert len(blobs) == 3
        assert (await client.pull("far")).status == "success"
        assert [one.model for one in (await client.list()).models] == ["far:latest"]
        assert (await client.show("far")).license == "MIT License"
        assert (await client.ps()).models == []
        with pytest.raises(ollama.ResponseError, match="no Ollama stands behind this mirror") as refused:
            await client.generate("far", "say")
        assert refused.value.status_code == 501
        await client.delete("far")
        assert (await client.list()).models == []
        assert at.ollama.asked == []
