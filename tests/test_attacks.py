"""What an attack on the running mirror found, each kept from coming back."""

import gc
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.errors import DeniedByUpstream, MirrorError
from mirror.fill import Unknown
from mirror.upstream.reply import token_in
from mirror.values import Digest, ModelName
from mirror.values.manifest import DOCKER_INDEX
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.process import mirror as command
from tests.support import MODEL, add_blob, blob_path, mirrored, noise


def test_a_token_answer_nested_without_end_is_no_token() -> None:
    """It once ended the whole server: JSON that deep is a RecursionError, not a ValueError."""
    with pytest.raises(DeniedByUpstream):
        token_in(b'{"token":' + b"[" * 100_000)


async def test_a_blob_that_cannot_be_looked_at_is_not_here(tmp_path: Path) -> None:
    """A loop of links under a blob's name once ended the server when another blob was published."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, 300_000)
        manifest = await client.manifest()
        config = manifest.blobs[-1]
        path = tmp_path / "store" / "blobs" / config.digest.filename
        path.symlink_to(path)

        answer = await client.get(blob_path(digest))
        assert (answer.status, answer.body) == (200, content)
        assert mirror.parts.store.blobs.size(config.digest) is None
        path.unlink()
        assert (await client.get(blob_path(config.digest))).status == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_damaged_memory_of_unknown_names_is_begun_anew(tmp_path: Path) -> None:
    """What it holds is of no importance, so it may never keep a mirror from starting or answering."""
    unknown = Unknown(tmp_path / "unknown")
    await unknown.add("nosuch", 60)
    assert await unknown.has("nosuch")
    for path in (tmp_path / "unknown").glob("cache.db*"):
        path.write_bytes(noise(8192))
    assert not await unknown.has("other")
    unknown.close()

    again = Unknown(tmp_path / "unknown")
    await again.add("nosuch", 60)
    assert await again.has("nosuch")
    again.close()
    gc.collect()  # what diskcache could not open it leaves to the collector, of which Python 3.13 and later warn


async def test_a_blob_changed_behind_our_back_is_fetched_again(tmp_path: Path) -> None:
    """A file cut short by hand was once served as a hit until the next start."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, 300_000)
        await client.manifest()
        await client.get(blob_path(digest))
        path = tmp_path / "store" / "blobs" / digest.filename
        path.write_bytes(b"short")

        answer = await client.get(blob_path(digest))
        assert (answer.status, answer.cache, answer.body) == (200, "MISS", content)
        (aside,) = (tmp_path / "state" / "quarantine").glob(f"{digest.filename}.*")
        assert aside.read_bytes() == b"short", "it is whole again, and the other one kept for a while"


async def test_another_models_wrong_size_does_no_harm(tmp_path: Path) -> None:
    """Anybody can have a manifest with a lie in it; the blob's own model says how large it is."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, 300_000)
        right = json.loads((await client.manifest()).raw)
        right["layers"][0]["size"] = 0
        fake.add_manifest("library/liar:latest", json.dumps(right).encode())
        await client.get("/v2/library/liar/manifests/latest")

        head = await client.get(blob_path(digest), method="HEAD")
        assert head.headers["Content-Length"] == "300000"
        assert (await client.get(blob_path(digest))).body == content


async def test_a_model_of_a_host_that_is_not_asked_is_not_pulled(tmp_path: Path) -> None:
    """Else our upstream's model would be filed under another's name."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        add_blob(fake, 1000)
        with pytest.raises(MirrorError, match="has no upstream for evil"):
            await mirror.parts.puller.pull(ModelName.parse("evil.example/library/m"), lambda _: None)
        assert not mirror.parts.store.staged.find(ModelName.parse("evil.example/library/m"))


def _index(fake: FakeRegistry, children: list[bytes], **more: Any) -> bytes:
    entries = [{"digest": str(Digest.of(one)), "size": len(one), "mediaType": DOCKER_INDEX} for one in children]
    raw = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": entries, **more}).encode()
    fake.add_manifest("library/m:part", raw)
    return raw


async def test_an_index_of_indexes_is_visited_once_each(tmp_path: Path) -> None:
    """Thirty levels of two that name both of the next were once two to the thirtieth visits."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        content = noise(1000)
        level = [fake.add_model("library/m:leaf", {MODEL_TYPE: content}).raw]
        for depth in range(30):
            level = [_index(fake, level, depth=depth, side=side) for side in (0, 1)]
        fake.add_manifest("library/m:latest", _index(fake, level))
        done = await mirror.parts.puller.pull(MODEL, lambda _: None)
        assert done.done == done.total > len(content)


async def test_a_model_of_many_layers_costs_each_layer_once(tmp_path: Path) -> None:
    """Tensor models have thousands; looking at all of them for each that came took minutes."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        config = json.dumps({"model_format": "safetensors"}).encode()
        layers = [fake.add_blob(b"layer %d" % number) for number in range(300)]
        entries = [{"digest": str(one), "size": len(b"layer %d" % n), "mediaType": "t"} for n, one in enumerate(layers)]
        first = {"digest": str(fake.add_blob(config)), "size": len(config), "mediaType": "c"}
        raw = json.dumps({"schemaVersion": 2, "config": first, "layers": entries}).encode()
        fake.add_manifest("library/m:latest", raw)
        await mirror.parts.puller.pull(MODEL, lambda _: None)
        stored = mirror.parts.store.complete.find(MODEL)
        assert stored is not None
        assert len(stored.blobs) == 301


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://["},
        {"Origin": "http://x:99999999"},
        {"Host": "evil.example:80", "Origin": "http://evil.example:80"},
        {"Host": "evil.example"},
        {"Host": "[", "Origin": "http://["},
    ],
)
async def test_a_page_that_rebinds_its_name_cannot_delete(tmp_path: Path, headers: dict[str, str]) -> None:
    """From a browser on the mirror's own machine, another site's page comes from loopback too."""
    async with (
        running_fake_registry() as fake,
        mirrored(tmp_path, fake) as (mirror, _),
        aiohttp.ClientSession() as session,
        session.delete(f"{mirror.url}/mirror/v1/models/m", headers=headers) as answer,
    ):
        assert answer.status == (400 if headers.get("Host") == "[" else 403)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"name": "m"', b"\xff\xfe"])
async def test_a_body_that_is_no_json_is_a_bad_request(tmp_path: Path, body: bytes) -> None:
    """Whatever makes a parser give up is the caller's fault."""
    async with (
        running_fake_registry() as fake,
        mirrored(tmp_path, fake) as (mirror, _),
        aiohttp.ClientSession() as session,
        session.post(
            f"{mirror.url}/mirror/v1/pulls", data=body, headers={"Content-Type": "application/json; charset=foo"}
        ) as answer,
    ):
        assert answer.status == 400


async def test_a_server_that_is_no_address_is_one_line(tmp_path: Path) -> None:
    """A typing error is no traceback."""
    failed = await command("list", "--server", "http://[", cwd=tmp_path)
    assert failed.code == 2
    assert failed.err.count("\n") == 1
