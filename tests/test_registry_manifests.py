"""What a client is told of a manifest: fresh, confirmed, stale, unknown."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.values import Digest, Manifest
from mirror.values.manifest import OCI_INDEX
from tests.fakes import Fault, Wrong
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.support import MANIFEST, MODEL, Answer, add_blob, ended, eventually, mirrored

OTHER = "/v2/library/other/manifests/latest"
NEVER_FRESH = {"cache__manifest_ttl": 0}


def promised(answer: Answer, manifest: Manifest) -> None:
    """Check what every answer with a manifest says."""
    assert answer.headers["Docker-Content-Digest"] == str(manifest.digest)
    assert answer.headers["Ollama-Content-Digest"] == manifest.digest.hex
    assert answer.headers["ETag"] == f'"{manifest.digest}"'
    assert answer.headers["Content-Type"] == manifest.media_type
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert "Content-Encoding" not in answer.headers


async def test_manifest_is_the_upstreams_byte_for_byte(tmp_path: Path) -> None:
    """Its digest is the model's id; its type is what it says itself."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        fake.faults.add(Fault(Wrong.TYPE, "manifest", text="text/plain; charset=utf-8"))
        raw = b'{ "mediaType":"application/vnd.docker.distribution.manifest.v2+json",\n "layers":[%s] , "x":1}\n'
        blob = fake.add_blob(b"abc")
        raw %= b'{"digest":"%s","size":3}' % str(blob).encode()
        manifest = fake.add_manifest("library/m", raw)
        for result in ("MISS", "HIT"):
            answer = await client.get(MANIFEST, Accept_Encoding="gzip")
            promised(answer, manifest)
            assert (answer.status, answer.body, answer.cache) == (200, raw, result)
            assert not {"Age", "Warning"} & set(answer.headers)
        assert len(fake.log) == 1


async def test_head_and_conditional_answers(tmp_path: Path) -> None:
    """Desktop apps look for updates with them."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        add_blob(fake, 1000)
        head = await client.get(MANIFEST, method="HEAD")
        manifest = await client.manifest()
        promised(head, manifest)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(manifest.raw))
        same = await client.get(MANIFEST, If_None_Match=f'"{manifest.digest}"')
        assert (same.status, same.body, same.headers["ETag"]) == (304, b"", f'"{manifest.digest}"')
        assert (await client.get(MANIFEST, If_None_Match='"other"')).status == 200


async def test_after_its_time_a_manifest_is_confirmed_or_replaced(tmp_path: Path) -> None:
    """HIT is what the upstream still says, MISS what it says now."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER_FRESH) as (_, client):
        add_blob(fake, 1000)
        assert [(await client.get(MANIFEST)).cache for _ in range(3)] == ["MISS", "HIT", "HIT"]
        _, moved = add_blob(fake, 1000, seed=1)
        answer = await client.get(MANIFEST)
        assert answer.cache == "MISS"
        assert Manifest.parse(answer.body).layers[0].digest == moved
        assert len(fake.log) == 4


async def test_many_who_ask_at_once_cost_one_request(tmp_path: Path) -> None:
    """By tag, in any letter case, and by digest; for what is there and for what is not."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        add_blob(fake, 1000)
        fake.faults.add(Fault(Wrong.DELAY, "manifest", value=0.1))
        digest = Digest.of(next(raw for (_, ref), raw in fake._manifests.items() if ref == "latest"))
        unknown = f"/v2/library/m/manifests/sha256:{'1' * 64}"
        wanted = (MANIFEST, f"/v2/library/m/manifests/{digest}", OTHER, unknown)
        for path, status in zip(wanted, (200, 200, 404, 404), strict=True):
            before = len(fake.log)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(client.get(path)) for _ in range(10)]
            assert {task.result().status for task in tasks} == {status}
            assert len(fake.log) - before <= 1


async def test_who_asked_first_may_leave(tmp_path: Path) -> None:
    """The others are not told that somebody else gave up."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        add_blob(fake, 1000)
        fake.faults.add(Fault(Wrong.DELAY, "manifest", times=1, value=30))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.get(MANIFEST))
            await fake.wait_for(lambda: len(fake.log) == 1)
            others = [group.create_task(client.get(MANIFEST)) for _ in range(5)]
            asyncio.get_running_loop().call_later(0.1, first.cancel)
        assert {task.result().status for task in others} == {200}
        assert len(fake.log) == 2


async def test_what_is_unknown_is_remembered_for_a_while(tmp_path: Path) -> None:
    """A typo in a script must not be asked upstream every second; a model that appears must be found."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, cache__negative_ttl=0.5) as (_, client):
        begun = time.monotonic()
        for _ in range(10):
            answer = await client.get(OTHER)
            assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
        assert len(fake.log) == 1 or time.monotonic() - begun > 0.5
        add_blob(fake, 1000, "library/other")

        async def found() -> bool:
            return (await client.get(OTHER)).status == 200

        await eventually(found)


async def test_the_memory_of_what_is_unknown_outlives_a_restart(tmp_path: Path) -> None:
    """As long as it is believed, and in the negative only."""
    async with running_fake_registry() as fake:
        for _ in range(2):
            async with mirrored(tmp_path, fake) as (_, client):
                assert (await client.get(OTHER)).status == 404
        assert len(fake.log) == 1


def stale(answer: Answer) -> None:
    """Check the answer of a mirror that could not ask."""
    assert (answer.status, answer.cache) == (200, "STALE")
    assert answer.headers["Warning"].startswith('110 - "')
    assert int(answer.headers["Age"]) >= 0


async def test_a_slow_upstream_makes_it_stale_in_time(tmp_path: Path) -> None:
    """Clients have no patience for what the mirror has."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER_FRESH) as (_, client):
        add_blob(fake, 1000)
        await client.get(MANIFEST)
        fake.faults.add(Fault(Wrong.DELAY, "manifest", value=30))
        begun = time.monotonic()
        stale(await client.get(MANIFEST))
        assert 0.4 < time.monotonic() - begun < 2


@pytest.mark.parametrize("fault", [None, Fault(Wrong.STATUS, "any", value=500), Fault(Wrong.BUSY, "any", text="60")])
async def test_an_upstream_in_trouble_is_left_alone_for_a_while(fault: Fault | None, tmp_path: Path) -> None:
    """The first finds out, the others are answered at once; then it is tried again."""
    changes = {**NEVER_FRESH, "cache__stale_hold": 0.4}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **changes) as (_, client):
        add_blob(fake, 1000)
        manifest = await client.manifest()
        if fault is None:
            await fake.stop_listening()
        else:
            fake.faults.add(fault)
        for _ in range(10):
            answer = await client.get(MANIFEST)
            stale(answer)
            promised(answer, manifest)
        if fault is None:
            await fake.listen()
        else:
            assert len(fake.log) <= 3
            fake.faults.clear()

        async def fresh() -> bool:
            return (await client.get(MANIFEST)).cache != "STALE"

        await eventually(fresh)


async def test_one_models_trouble_is_not_the_upstreams(tmp_path: Path) -> None:
    """A tag that answers nonsense does not make the others stale."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER_FRESH) as (_, client):
        add_blob(fake, 1000)
        add_blob(fake, 1000, "library/other", seed=1)
        await client.get(MANIFEST)
        await client.get(OTHER)
        fake._manifests["library/m", "latest"] = b"nonsense"
        assert (await client.get(MANIFEST)).cache == "STALE"
        assert (await client.get(OTHER)).cache == "HIT"


async def test_stale_means_rather_a_whole_model_than_a_newer_one(tmp_path: Path) -> None:
    """With the upstream gone, only the old one can still be pulled."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER_FRESH) as (mirror, client):
        fake.add_model("library/m", {MODEL_TYPE: b"old"})
        old = await client.manifest()
        for blob in old.blobs:
            await ended(await mirror.parts.fills.open(MODEL, blob.digest, blob.size))
        fake.add_model("library/m", {MODEL_TYPE: b"newer"})
        assert (await client.manifest()) != old
        await fake.stop_listening()
        answer = await client.get(MANIFEST)
        assert (answer.cache, answer.body) == ("STALE", old.raw)


async def test_a_model_the_upstream_has_dropped_is_still_served(tmp_path: Path) -> None:
    """Reproducing last year's results is what a mirror is for."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **NEVER_FRESH) as (_, client):
        add_blob(fake, 1000)
        await client.get(MANIFEST)
        fake._manifests.clear()
        stale(await client.get(MANIFEST))


async def test_without_a_copy_the_trouble_is_told(tmp_path: Path) -> None:
    """Everybody else says 404."""
    table = [
        (Fault(Wrong.STATUS, "manifest", value=500), 503, "UNAVAILABLE"),
        (Fault(Wrong.BUSY, "manifest", text="77"), 429, "TOOMANYREQUESTS"),
        (Fault(Wrong.STATUS, "manifest", value=403), 403, "DENIED"),
        (Fault(Wrong.DIGEST, "manifest"), 502, "UNKNOWN"),
    ]
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        add_blob(fake, 1000)
        for fault, status, code in table:
            fake.faults.add(fault)
            answer = await client.get(MANIFEST)
            (error,) = json.loads(answer.body)["errors"]
            assert (answer.status, error["code"]) == (status, code)
            assert "manifest library/m:latest" in error["message"]
            if status == 429:
                assert answer.headers["Retry-After"] == "77"
            fake.faults.clear()


async def test_offline_says_so(tmp_path: Path) -> None:
    """And what is here is a HIT, however old."""
    async with running_fake_registry() as fake:
        add_blob(fake, 1000)
        async with mirrored(tmp_path, fake, **NEVER_FRESH) as (_, client):
            await client.get(MANIFEST)
        async with mirrored(tmp_path, fake, offline=True, **NEVER_FRESH) as (_, client):
            assert (await client.get(MANIFEST)).cache == "HIT"
            missing = await client.get(OTHER)
            assert (missing.status, b"offline" in missing.body) == (404, True)
        assert len(fake.log) == 1


def with_index(fake: FakeRegistry) -> Manifest:
    """Have an index under the tag; return the manifest it names."""
    child = fake.add_model("library/m:child", {MODEL_TYPE: b"weights"})
    entry = {"mediaType": child.media_type, "digest": str(child.digest), "size": len(child.raw)}
    fake.add_manifest("library/m", json.dumps({"mediaType": OCI_INDEX, "manifests": [entry]}).encode())
    return child


async def test_an_index_and_its_children(tmp_path: Path) -> None:
    """By tag and by digest; a child is kept and asked for once."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        child = with_index(fake)
        index = await client.manifest()
        assert (index.media_type, index.children[0].digest) == (OCI_INDEX, child.digest)
        for result in ("MISS", "HIT", "HIT"):
            answer = await client.get(f"/v2/library/m/manifests/{child.digest}")
            promised(answer, child)
            assert (answer.body, answer.cache) == (child.raw, result)
        assert (await client.get(f"/v2/library/m/manifests/{index.digest}")).cache == "HIT"
        assert len(fake.log) == 2


async def test_another_spelling_that_is_not_there_hides_no_model(tmp_path: Path) -> None:
    """Upstream letter case may matter: what one asks for in capitals says nothing of what there is."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        add_blob(fake, 1000)
        assert (await client.get("/v2/LIBRARY/M/manifests/LATEST")).status == 404
        assert (await client.get(MANIFEST)).status == 200
