"""What the mirror answers where no Ollama stands behind it: from the store, in Ollama's own words."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mirror.demo.model import CONFIG_TYPE, MODEL_TYPE, write_model
from mirror.values import Descriptor, Digest
from tests.behind import Fronted, asked, fronted
from tests.fakes import Fault, Wrong
from tests.support import SOON_S, eventually, noise

TYPE = "application/vnd.ollama.image."
CONFIG = {
    "model_format": "gguf",
    "model_family": "qwen3",
    "model_families": ["qwen3"],
    "model_type": "8.2B",
    "file_type": "unknown",
    "context_length": 4096,
}
BODIES: tuple[tuple[bytes, str], ...] = (
    (b"", "missing request body"),
    (b"  ", "missing request body"),
    (b"{x", "invalid character 'x' looking for beginning of object key string"),
    (b"xyz", "invalid character 'x' looking for beginning of value"),
    (b'{"mod', "unexpected EOF"),
    (b'{"model"', "unexpected EOF"),
    (b'{"model":5}', "json: cannot unmarshal number into Go struct field PullRequest.model of type string"),
    (
        b'{"model":"m","stream":"no"}',
        "json: cannot unmarshal string into Go struct field PullRequest.stream of type bool",
    ),
    (b"[]", "json: cannot unmarshal array into Go value of type api.PullRequest"),
    (b"{}", "invalid model name"),
    (b'{"model":""}', "invalid model name"),
    (b'{"model":"a/b/c/d"}', "invalid model name"),
    (b'{"model":"a b","name":"m"}', "invalid model name"),
    (b'{"model":"m@sha256:00"}', "invalid model name"),
    (b"\xff", "the request's body is no JSON text in UTF-8"),
    (b'{"model":' + b"1" * 5000 + b"}", "the request's body is no JSON text in UTF-8"),
    (b"[" * 100_000, "the request's body is no JSON text in UTF-8"),
)


def add(at: Fronted, name: str, weights: bytes, config: object = CONFIG, **layers: bytes) -> None:
    """Have the registry hold a model with these layers by kind."""
    parts = {MODEL_TYPE: weights} | {f"{TYPE}{kind}": content for kind, content in layers.items()}
    at.registry.add_model(f"library/{name}", parts, json.dumps(config).encode())


async def pulled(at: Fronted, name: str) -> list[dict[str, Any]]:
    """Pull a model; return the lines."""
    status, lines = await at.json("/api/pull", {"model": name})
    assert status == 200
    return list(lines)


async def test_show_and_tags_say_what_the_model_says_of_itself(tmp_path: Path) -> None:
    """Programs choose by context length, quantisation and capability; what config lacks the weights have."""
    folder = tmp_path / "made"
    model = await asyncio.to_thread(write_model, folder, size=100_000)
    weights = model.path(model.blobs[0].digest).read_bytes()
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at:
        texts = {
            "template": b"{{ .Prompt }}",
            "system": b"Be brief.",
            "license": b"MIT",
            "params": b'{"stop":["a","b"]}',
        }
        add(at, "m:8b", weights, **texts)
        assert (await pulled(at, "m:8b"))[-1] == {"status": "success"}
        _, shown = await at.json("/api/show", {"name": "m:8b"})
        (row,) = json.loads((await at.client.get("/api/tags")).body)["models"]
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": "qwen3",
        "families": ["qwen3"],
        "parameter_size": "8.2B",
        "quantization_level": "Q4_K_M",
    }
    assert shown["details"] == details
    assert row["details"] == details | {"context_length": 4096, "embedding_length": 4096}
    assert (shown["template"], shown["system"], shown["license"]) == ("{{ .Prompt }}", "Be brief.", "MIT")
    assert shown["parameters"] == 'stop                           "a"\nstop                           "b"'
    assert shown["model_info"]["llama.context_length"] == 8192
    assert "general.name" not in shown["model_info"]
    assert (row["model"], len(row["digest"]), row["modified_at"]) == ("m:8b", 64, shown["modified_at"])


@pytest.mark.parametrize("config", [[], "text", {"model_family": 5, "model_families": "x", "context_length": "many"}])
async def test_a_model_that_says_nonsense_is_listed_and_shown_all_the_same(config: object, tmp_path: Path) -> None:
    """One bad model must not take the list of all others with it."""
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at:
        add(at, "odd:latest", noise(1000), config, params=b"[1]", template=b"\xff\xfe")
        assert (await pulled(at, "odd"))[-1] == {"status": "success"}
        status, shown = await at.json("/api/show", {"model": "odd"})
        assert (status, shown["model_info"], shown["details"]["family"]) == (200, {"general.architecture": ""}, "")
        listed = json.loads((await at.client.get("/api/tags")).body)["models"]
        assert [one["model"] for one in listed] == ["odd:latest"]


async def test_a_pull_tells_of_each_blob_while_it_comes(tmp_path: Path) -> None:
    """Clients draw a bar for each digest, and take a last status that is not success for a failure."""
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at, asyncio.timeout(SOON_S):
        weights = noise(400_000)
        add(at, "m:latest", weights)
        digest = Digest.of(weights)
        at.registry.hold(digest, 100_000)
        async with at.client.session.post(at.client.url("/api/pull"), json={"model": "m"}) as answer:
            assert answer.content_type == "application/x-ndjson"
            assert json.loads(await answer.content.readline()) == {"status": "pulling manifest"}
            half: dict[str, Any] = {"total": 0, "completed": 0}
            while half.get("digest") != str(digest):
                half = json.loads(await answer.content.readline())
            assert half["status"] == f"pulling {digest.hex[:12]}"
            assert 0 < half["completed"] < half["total"] == 400_000
            at.registry.release(digest)
            rest = [json.loads(line) for line in (await answer.read()).splitlines()]
        assert [one["status"] for one in rest[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
        full = {"status": half["status"], "digest": str(digest), "total": 400_000, "completed": 400_000}
        assert full in rest
        again = await pulled(at, "m")
        assert [one for one in again if one.get("digest") == str(digest)] == [full]


async def test_a_client_that_leaves_gives_its_pull_up(tmp_path: Path) -> None:
    """Ctrl-C at ``ollama pull``; with keep_filling off nobody wants those bytes any more."""
    async with (
        fronted(tmp_path, backend="none", pulls__mode="now", cache__keep_filling=False) as at,
        asyncio.timeout(SOON_S),
    ):
        weights = noise(400_000)
        add(at, "m:latest", weights)
        at.registry.hold(Digest.of(weights), 100_000)
        async with at.client.session.post(at.client.url("/api/pull"), json={"model": "m"}) as answer:
            await answer.content.readline()

        async def idle() -> bool:
            return not at.mirror.parts.fills.in_flight

        await eventually(idle)
        at.registry.release(Digest.of(weights))


async def test_a_pull_that_fails_says_so_as_ollama_does(tmp_path: Path) -> None:
    """A stream ends with an error line and status 200, one object has status 500."""
    missing = {"error": "pull model manifest: file does not exist"}
    async with fronted(tmp_path, backend="none", pulls__mode="now", upstream__retry_attempts=0) as at:
        assert await pulled(at, "nope") == [{"status": "pulling manifest"}, missing]
        assert await at.json("/api/pull", {"name": "nope", "stream": False}) == (500, missing)
        add(at, "m:latest", noise(1000))
        at.registry.faults.add(Fault(Wrong.STATUS, "any", value=500))
        assert "500" in (await pulled(at, "m"))[-1]["error"]
        at.registry.faults.clear()
        assert await at.json("/api/pull", {"model": "m", "stream": False, "insecure": True}) == (
            200,
            {"status": "success"},
        )


async def test_an_offline_mirror_has_what_it_has_and_asks_nobody(tmp_path: Path) -> None:
    """A pull of what is stored succeeds, as programs pull before they use a model; the other says why it fails."""
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at:
        add(at, "m:latest", noise(1000))
        await pulled(at, "m")
    async with fronted(tmp_path, backend="none", pulls__mode="now", offline=True) as at:
        assert (await pulled(at, "m"))[-1] == {"status": "success"}
        assert "the mirror is offline" in (await pulled(at, "nope"))[-1]["error"]
        assert at.registry.log == []


@pytest.mark.parametrize(("body", "said"), BODIES)
async def test_a_bad_request_has_ollama_s_status_and_text(body: bytes, said: str, tmp_path: Path) -> None:
    """Programs and people look such texts up."""
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at:
        assert await at.json("/api/pull", body) == (400, {"error": said})
        assert at.registry.log == []


async def test_what_is_not_there_and_what_is_no_name(tmp_path: Path) -> None:
    """``ollama run`` pulls on this 404 and no other text."""
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at:
        assert await at.json("/api/show", {"model": "nope"}) == (404, {"error": "model 'nope:latest' not found"})
        assert await at.json("/api/show", {}) == (400, {"error": "model is required"})
        assert await at.json("/api/show", {"model": "a b"}) == (400, {"error": "invalid model name"})
        gone = await at.json("/api/delete", {"model": "nope"}, method="DELETE")
        assert gone == (404, {"error": "model 'nope' not found"})
        wrong = await at.json("/api/delete", {"model": "a b"}, method="DELETE")
        assert wrong == (400, {"error": 'name "a b" is invalid'})


async def test_go_reads_keys_in_any_letter_case_and_the_last_of_two(tmp_path: Path) -> None:
    """Clients written by hand rely on it, knowing or not."""
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at:
        add(at, "m:latest", noise(1000))
        assert (await at.json("/api/pull", b'{"model":"nope","MODEL":"m","Stream":false}'))[0] == 200


async def test_a_body_without_end_is_refused(tmp_path: Path) -> None:
    """Said or not said beforehand how long it is."""
    async with fronted(tmp_path, backend="none", pulls__mode="now", proxy__max_body=2000) as at:
        status, said = await at.json("/api/show", b'{"model":"' + b"x" * 3000 + b'"}')
        assert (status, "proxy.max_body" in said["error"]) == (413, True)

        async def chunks() -> Any:
            for _ in range(10):
                yield b" " * 1000

        async with at.client.session.post(at.client.url("/api/show"), data=chunks()) as answer:
            assert answer.status == 413


async def test_a_delete_takes_the_model_out_of_the_store(tmp_path: Path) -> None:
    """And needs an admin: from elsewhere a key that lists it, where any may else use the API."""
    async with fronted(tmp_path, backend="none", pulls__mode="now", security__trusted_proxies=["127.0.0.1"]) as at:
        add(at, "m:latest", noise(1000))
        await pulled(at, "m")
        refused = await asked(at.client, "/api/delete", {"model": "m"}, method="DELETE", X_Forwarded_For="10.1.1.1")
        assert (refused[0], "admin" in refused[1]["error"]) == (403, True)
        assert await at.json("/api/delete", {"model": "M"}, method="DELETE") == (200, "")
        assert json.loads((await at.client.get("/api/tags")).body) == {"models": []}
        assert list((tmp_path / "store" / "blobs").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "keys"),
    [("/api/chat", {"error"}), ("/v1/chat/completions", {"error"}), ("/v1/messages", {"type", "error"})],
)
async def test_what_takes_an_ollama_says_how_to_set_one(path: str, keys: set[str], tmp_path: Path) -> None:
    """In the shape of its face, so that a person gets to read it."""
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at:
        status, said = await at.json(path, {"model": "m"})
        assert (status, said.keys(), "set proxy.backend" in json.dumps(said)) == (501, keys, True)


async def test_an_index_is_described_by_what_it_has(tmp_path: Path) -> None:
    """A manifest without weights or config is rare, and no reason to fail."""
    async with fronted(tmp_path, backend="none", pulls__mode="now") as at:
        config = Descriptor(at.registry.add_blob(b"{}"), 2, CONFIG_TYPE)
        raw = json.dumps({"schemaVersion": 2, "config": {"digest": str(config.digest), "size": 2}}).encode()
        at.registry.add_manifest("library/bare:latest", raw)
        assert (await pulled(at, "bare"))[-1] == {"status": "success"}
        assert (await at.json("/api/show", {"model": "bare"}))[1]["model_info"] == {"general.architecture": ""}
