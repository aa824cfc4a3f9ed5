"""The policy as clients meet it: by name, by what a model is, at manifests, blobs, lists and pulls."""

import json
from pathlib import Path
from typing import Any

import pytest

from mirror.access import Policy
from mirror.config import FurtherUpstream, Settings
from mirror.demo.model import MODEL_TYPE
from mirror.upstream.routes import Routes
from mirror.values import ByteRange, Digest, ModelName
from mirror.values.manifest import DOCKER_MANIFEST
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
        assert (answer.status, b"ask for the manifest of its model first" in answer.body) == (403, True)
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


async def test_one_broken_model_spoils_no_other(tmp_path: Path) -> None:
    """A license that two models share goes out for the one that is allowed, whatever is wrong with the other."""
    rules = [{"deny": ["*"], "parameters_over": "13B"}]
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, security__rules=rules) as (_, client):
        add(fake, "library/good:8b")
        assert (await pulled(client, "good:8b"))["status"] == "success"
        add(fake, "library/bad:8b", parameters="7.1B")
        fake.forget(Digest.of(json.dumps({"model_format": "gguf", "model_type": "7.1B"}).encode()))
        assert (await manifest(client, "library/bad:8b"))[0] == 404
        shared = Digest.of(b"MIT License")
        for repository in ("library/good", "library/bad"):
            assert (await client.get(blob_path(shared, repository))).body == b"MIT License"


async def test_a_manifest_that_names_one_license_a_thousand_times_costs_no_more(tmp_path: Path) -> None:
    """It is read once; a license of more than a few pages says nothing."""
    rules = [{"deny": ["*"], "licenses": ["*non-commercial*"]}]
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, security__rules=rules) as (_, client):
        text = fake.add_blob(b"Non-Commercial")
        layer = {"mediaType": LICENSE, "digest": str(text), "size": 14}
        raw = json.dumps({"schemaVersion": 2, "layers": [layer] * 1000}).encode()
        fake.add_manifest("library/m:8b", raw)
        assert (await manifest(client, "library/m:8b"))[0] == 403
        assert len([entry for entry in fake.asked("redirect") if str(text) in entry.path]) <= 2


async def test_a_list_of_manifests_is_judged_by_each_of_them(tmp_path: Path) -> None:
    """The list itself has no size and no license; what is in it has."""
    rules = [{"deny": ["*"], "over": 500_000}]
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, security__rules=rules) as (_, client):
        small = add(fake, "library/small:8b")
        large = add(fake, "library/large:8b", 600_000)
        listed: dict[str, list[Digest]] = {}
        for name, blob in (("small", small), ("large", large)):
            raw = fake.manifest_bytes(f"library/{name}:8b")
            entry = {"mediaType": DOCKER_MANIFEST, "digest": str(Digest.of(raw)), "size": len(raw)}
            fake.add_manifest(f"library/{name}-list:8b", raw)
            fake.add_manifest(
                f"library/{name}-list:latest", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
            )
            listed[name] = [Digest.of(raw), blob]
        for name, status in (("small", 200), ("large", 403)):
            child, blob = listed[name]
            assert (await manifest(client, f"library/{name}-list:latest"))[0] == 200
            assert (await client.get(f"/v2/library/{name}-list/manifests/{child}")).status == status
            assert (await client.get(blob_path(blob, f"library/{name}-list"))).status == status
        assert (await pulled(client, "small-list:latest"))["status"] == "success"
        assert "over 500KB" in (await pulled(client, "large-list:latest"))["error"]
        assert fake.blob_bytes_sent(large) == 0


async def test_a_digest_is_no_way_around_a_rule_on_a_tag(tmp_path: Path) -> None:
    """Nor another repository's name, nor a folder that is only read, nor another host of the same upstream."""
    async with running_fake_registry() as fake:
        blob = add(fake, "library/m:70b")
        add(fake, "library/m:8b", text="Apache")
        raw = fake.manifest_bytes("library/m:70b")
        async with mirrored(tmp_path, fake, security__blocked_models=["m:70b"]) as (_, client):
            await manifest(client, "library/m:8b")
            for path in (
                f"/v2/library/m/manifests/{Digest.of(raw)}",
                f"/v2/library/other/manifests/{Digest.of(raw)}",
                blob_path(blob, "library/m"),
                blob_path(blob, "library/other"),
            ):
                assert (await client.get(path)).status == 403
            assert fake.blob_bytes_sent(blob) == 0


def test_a_rule_may_name_any_host_of_an_upstream() -> None:
    """Models of huggingface.co are filed under hf.co, which a rule need not know."""
    routes = Routes("registry.ollama.ai", [FurtherUpstream(name="huggingface")])  # type: ignore[call-arg]
    security = Settings(security={"blocked_models": ["huggingface.co/*/*", "me/*"]}).security
    policy = Policy.of(security, "registry.ollama.ai", routes.filed_pattern)
    assert policy.decide(ModelName.parse("hf.co/me/m:Q4")).refused
    assert policy.decide(ModelName.parse("me/m")).refused
    assert policy.decide(ModelName.parse("m")).allowed


async def test_offline_asks_nobody_whatever_the_rules(tmp_path: Path) -> None:
    """Not for a license, not for a prefetch, not for a blob."""
    rules = [{"deny": ["*"], "licenses": ["*non-commercial*"]}]
    async with running_fake_registry() as fake:
        add(fake, "library/here:8b")
        add(fake, "library/staged:8b")
        async with mirrored(tmp_path, fake) as (_, client):
            assert (await pulled(client, "here:8b"))["status"] == "success"
            await manifest(client, "library/staged:8b")
        asked = len(fake.log)
        async with mirrored(tmp_path, fake, offline=True, security__rules=rules) as (_, client):
            assert (await manifest(client, "library/here:8b"))[0] == 200
            assert (await manifest(client, "library/staged:8b"))[0] in (200, 404)
            assert "offline" in (await pulled(client, "staged:8b"))["error"]
        assert len(fake.log) == asked
