"""The policy as clients meet it: by name, by what a model is, at manifests, blobs, lists and pulls."""

import json
from pathlib import Path
from typing import Any

import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.values import ByteRange, Digest
from tests.fakes import Fault, Wrong
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.support import Machine, blob_path, eventually, mirrored, noise

LICENSE = "application/vnd.ollama.image.license"


def add(fake: FakeRegistry, name: str, size: int = 1000, parameters: str = "8.0B", text: str = "MIT License") -> Digest:
    """Hold a model that says what it is; return its large blob."""
    content = noise(size, seed=sum(name.encode()))
    config = json.dumps({"model_format": "gguf", "model_type": parameters}).encode()
    fake.add_model(f"{name}", {MODEL_TYPE: content, LICENSE: text.encode()}, config)
    return Digest.of(content)


async def manifest(client: Machine, name: str) -> tuple[int, str]:
    """Ask for a manifest; return status and body."""
    repository, _, tag = name.partition(":")
    answer = await client.get(f"/v2/{repository}/manifests/{tag}")
    return answer.status, answer.body.decode()


async def pulled(client: Machine, name: str) -> dict[str, Any]:
    """Have a model fetched; return the last line."""
    async with client.session.post(client.url("/mirror/v1/pulls"), json={"name": name}) as reply:
        last: dict[str, Any] = json.loads((await reply.read()).splitlines()[-1])
        return last


async def test_a_name_that_is_refused_is_asked_of_nobody(tmp_path: Path) -> None:
    """The sentence names the rule; Ollama shows it to its user."""
    said = {"security__blocked_models": ["bad"], "security__allowed_models": ["*:8b", "bad"]}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **said) as (_, client):
        for name in ("library/bad:8b", "library/m:70b", "library/m:8b"):
            add(fake, name)
        assert (await manifest(client, "library/m:8b"))[0] == 200
        for name, why in (("library/bad:8b", "security.blocked_models has bad"), ("library/m:70b", "allowed_models")):
            status, body = await manifest(client, name)
            assert (status, why in body, '"DENIED"' in body) == (403, True, True)
            assert why in (await pulled(client, name))["error"]
        assert {entry.path for entry in fake.asked("manifest")} == {"/v2/library/m/manifests/8b"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"deny": ["*"], "over": 500_000}, "over 500KB"),
        ({"deny": ["*"], "parameters_over": "13B"}, "with more than 13B parameters"),
        ({"deny": ["*"], "licenses": ["*non-commercial*"]}, "with a license like *non-commercial*"),
    ],
)
async def test_what_a_model_is_decides(rule: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Its manifest and small blobs are looked at; the large one of a refused model is never fetched, by no way."""
    rules = [{**rule, "why": "ask the lab"}]
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, security__rules=rules) as (_, client):
        fine = add(fake, "library/m:8b")
        big = add(fake, "library/m:70b", 600_000, "70.6B", "For\nNon-Commercial use")
        assert (await manifest(client, "library/m:8b"))[0] == 200
        status, body = await manifest(client, "library/m:70b")
        assert (status, said in body, "ask the lab" in body) == (403, True, True)
        assert said in (await pulled(client, "m:70b"))["error"]
        assert (await client.get(blob_path(fine))).status == 200
        assert (await client.get(blob_path(big))).status == 403
        part = await client.get(blob_path(big), ByteRange(0, 10))
        assert (part.status, part.body, said in part.headers["X-Mirror-Error"]) == (403, b"", True)
        assert fake.blob_bytes_sent(big) == 0
        assert (await pulled(client, "m:8b"))["status"] == "success"


async def test_a_blob_of_which_nobody_knows_the_model_waits_for_its_manifest(tmp_path: Path) -> None:
    """Who has the digest from elsewhere must not get past a rule by not asking for the model."""
    rules = [{"deny": ["*"], "over": 500_000}]
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, security__rules=rules) as (_, client):
        digest = add(fake, "library/m:8b")
        answer = await client.get(blob_path(digest))
        assert (answer.status, b"ask for its manifest first" in answer.body) == (403, True)
        await manifest(client, "library/m:8b")
        assert (await client.get(blob_path(digest))).status == 200


async def test_a_model_that_is_stored_is_refused_all_the_same(tmp_path: Path) -> None:
    """By tag, by digest, by blob, and in the lists; what two models share goes with the one that is allowed."""
    async with running_fake_registry() as fake:
        old, shared = add(fake, "library/old:8b"), Digest.of(b"MIT License")
        add(fake, "library/new:8b")
        async with mirrored(tmp_path, fake) as (_, client):
            for name in ("old:8b", "new:8b"):
                assert (await pulled(client, name))["status"] == "success"
            raw = (await client.get("/v2/library/old/manifests/8b")).body
        async with mirrored(tmp_path, fake, security__blocked_models=["old"]) as (_, client):
            for path in (
                "/v2/library/old/manifests/8b",
                f"/v2/library/old/manifests/{Digest.of(raw)}",
                blob_path(old, "library/old"),
                blob_path(old, "library/new"),
            ):
                for method in ("GET", "HEAD"):
                    assert (await client.get(path, method=method)).status == 403
            assert (await client.get(blob_path(shared, "library/new"))).body == b"MIT License"
            assert b"old" not in (await client.get("/v2/_catalog")).body
            listed = json.loads((await client.get("/api/tags")).body)["models"]
            assert [one["name"] for one in listed] == ["new:8b"]
            assert (await client.get("/v2/library/old/tags/list")).status == 404


async def test_a_license_that_cannot_be_read_now_lets_nothing_through(tmp_path: Path) -> None:
    """A rule on it would else be passed by whoever asks while the upstream is in trouble."""
    rules = [{"deny": ["*"], "licenses": ["*non-commercial*"]}]
    changes: dict[str, Any] = {"security__rules": rules, "upstream__retry_attempts": 0}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **changes) as (_, client):
        add(fake, "library/m:8b", text="Non-commercial")
        fake.faults.add(Fault(Wrong.STATUS, "any", value=503, times=2))
        assert (await manifest(client, "library/m:8b"))[0] == 503

        async def refused() -> bool:
            return (await manifest(client, "library/m:8b"))[0] == 403

        await eventually(refused)
