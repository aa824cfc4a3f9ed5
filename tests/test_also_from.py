"""Folders of other Ollamas that the mirror serves from and never writes to (cache.also_from)."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.app import RunningMirror
from mirror.demo.model import MODEL_TYPE
from mirror.store import extra
from mirror.values import ByteRange, Digest, ModelName
from tests.fakes import Fault, Wrong
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.ollama_tree import age, blob, manifest_path, ollama_deletes, ollama_pulls
from tests.stored import CONFIG, files, manifest_of
from tests.support import Machine, blob_path, eventually, mirrored, noise

NAME = ModelName.parse("theirs")
TAG = "/v2/library/theirs/manifests/latest"
BIG, SMALL = noise(3_000_000, 1), b"licence"


@pytest.fixture(autouse=True)
def _looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "_LOOK_S", 0.02)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder of another Ollama, with one model that it pulled some time ago."""
    ollama_pulls(tmp_path / "there", NAME, BIG, SMALL, hours_ago=1)
    return tmp_path / "there"


@asynccontextmanager
async def also_from(
    folder: Path, *others: Path, fake: FakeRegistry | None = None, **changes: Any
) -> AsyncIterator[tuple[RunningMirror, Machine]]:
    """A mirror that serves from ``others`` too; offline where there is no registry."""
    async with running_fake_registry() as nobody:
        settings = {"cache__also_from": others, "offline": fake is None, **changes}
        async with mirrored(folder, fake or nobody, **settings) as (mirror, client):
            yield mirror, client


async def proven(mirror: RunningMirror, *contents: bytes) -> None:
    """Wait until the mirror has hashed these blobs where they lie."""

    async def hashed() -> bool:
        return all(mirror.parts.store.extra.size(Digest.of(one)) == len(one) for one in contents)

    await eventually(hashed)


async def ask(client: Machine, content: bytes, span: ByteRange | None = None, method: str = "GET") -> tuple[int, bytes]:
    """Ask for a blob; return the status and what came."""
    answer = await client.get(blob_path(Digest.of(content), NAME.repository), span, method=method)
    return answer.status, answer.body


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A read-only mount with one model, one of its blobs a link."""
    folder = tmp_path / "mount"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting is not allowed here: {error}")
    try:
        ollama_pulls(folder, NAME, BIG, SMALL, hours_ago=1)
        blob(folder, SMALL).rename(folder / "elsewhere")
        blob(folder, SMALL).symlink_to("../elsewhere")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True, timeout=10)
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=10)


async def test_a_read_only_mount_is_served_byte_for_byte_offline(tmp_path: Path, mounted: Path) -> None:
    """By name and by digest, whole and in ranges, listed everywhere; nothing of it is copied."""
    async with also_from(tmp_path, mounted) as (mirror, client):
        await proven(mirror, BIG, SMALL, CONFIG)
        manifest = await client.get(TAG)
        assert (manifest.body, manifest.cache) == (manifest_of(BIG, SMALL).raw, "HIT")
        by_digest = await client.get(f"/v2/library/theirs/manifests/{manifest_of(BIG, SMALL).digest}")
        assert by_digest.body == manifest.body
        for content in (BIG, SMALL, CONFIG):
            assert await ask(client, content) == (200, content)
        assert await ask(client, BIG, ByteRange(1_000_001, 2_000_000)) == (206, BIG[1_000_001:2_000_000])
        head = await client.get(blob_path(Digest.of(BIG)), method="HEAD")
        assert (head.status, head.cache, head.headers["Content-Length"]) == (200, "HIT", str(len(BIG)))
        assert json.loads((await client.get("/api/tags")).body)["models"][0]["name"] == "theirs:latest"
        assert json.loads((await client.get("/v2/_catalog")).body) == {"repositories": ["library/theirs"]}
        assert json.loads((await client.get("/v2/library/theirs/tags/list")).body)["tags"] == ["latest"]
        assert files(tmp_path / "store") == set()


async def test_where_a_model_lies_is_said_and_it_is_not_ours_to_remove(tmp_path: Path, there: Path) -> None:
    """Neither by a person nor by a limit."""
    before = files(there)
    async with also_from(tmp_path, there, cache__max_size=10) as (mirror, client):
        await proven(mirror, BIG, SMALL, CONFIG)
        [view] = json.loads((await client.get("/mirror/v1/models")).body)["models"]
        assert (view["from"], view["complete"], view["name"]) == (str(there), True, "theirs:latest")
        shown = json.loads((await client.get("/mirror/v1/models/theirs")).body)
        assert shown["details"]["format"] == "gguf"
        refused = await client.get("/mirror/v1/models/theirs", method="DELETE")
        assert refused.status == 409
        said = f"theirs:latest lies in {there}, which this mirror only reads"
        assert json.loads(refused.body)["detail"] == said
        assert (await mirror.parts.keeper.plan(everything=True)).rows == ()
        assert (await mirror.parts.keeper.collect()).done == ()
    assert files(there) == before


@pytest.mark.parametrize("wrong", [BIG[:-1] + b"?", BIG[:2_000_000] + bytes(1_000_000), BIG[:-1], b""])
async def test_an_incomplete_blob_is_never_served(tmp_path: Path, there: Path, wrong: bytes) -> None:
    """An old Ollama wrote straight into final names; whoever trusts a name gets a broken model."""
    blob(there, BIG).write_bytes(wrong)
    age(blob(there, BIG), 1)
    async with also_from(tmp_path, there) as (mirror, client):
        await proven(mirror, SMALL, CONFIG)

        async def all_hashed() -> bool:
            return (tmp_path / "state" / "proven.json").exists() and not mirror.parts.store.extra._to_prove

        await eventually(all_hashed)
        assert (await ask(client, BIG))[0] == 404
        assert (await ask(client, BIG, ByteRange(0, 5)))[0] == 404
        assert (await client.get(TAG)).status == 404
        assert json.loads((await client.get("/api/tags")).body)["models"] == []


@pytest.mark.parametrize("how", ["cut", "written over", "replaced", "gone"])
async def test_what_changed_after_it_was_proven_is_not_served(tmp_path: Path, there: Path, how: str) -> None:
    """The folder is somebody else's; and once it is right again it is served again."""
    path = blob(there, BIG)
    async with also_from(tmp_path, there) as (mirror, client):
        await proven(mirror, BIG, SMALL, CONFIG)
        with mirror.parts.store.open_blob(Digest.of(BIG)) or pytest.fail("it is proven") as held:
            if how == "cut":
                os.truncate(path, 1000)
            elif how == "written over":
                path.write_bytes(bytes(len(BIG)))
            else:
                path.unlink()
            if how == "replaced":
                path.write_bytes(bytes(len(BIG)))
            assert held.sound == (how in ("replaced", "gone"))
        assert (await ask(client, BIG))[0] == 404
        path.write_bytes(BIG)
        age(path, 2)
        await proven(mirror, BIG)
        assert await ask(client, BIG) == (200, BIG)


async def test_a_file_of_just_now_is_not_yet_believed(tmp_path: Path, there: Path) -> None:
    """Who wrote it may write again within the same tick of the clock, and no stat would show it."""
    newest = b"of just now"
    async with also_from(tmp_path, there) as (mirror, _):
        ollama_pulls(there, NAME.with_tag("new"), newest)
        await mirror.parts.store.extra.look()
        assert Digest.of(newest) not in {Digest.parse(path.name) for path, _ in mirror.parts.store.extra._to_prove}
        await proven(mirror, newest)


async def test_where_upstream_says_the_same_nothing_is_fetched(tmp_path: Path, there: Path) -> None:
    """It is asked as usual, and not again for a while."""
    async with running_fake_registry() as fake:
        fake.add_manifest("library/theirs:latest", manifest_of(BIG, SMALL).raw)
        async with also_from(tmp_path, there, fake=fake) as (mirror, client):
            await proven(mirror, BIG, SMALL, CONFIG)
            for _ in range(3):
                answer = await client.get(TAG)
                assert (answer.body, answer.cache) == (manifest_of(BIG, SMALL).raw, "HIT")
            assert len(fake.asked("manifest")) == 1
            for content in (BIG, SMALL, CONFIG):
                assert await ask(client, content) == (200, content)
            assert fake.blob_bytes_sent() == 0
            assert files(tmp_path / "store") == set()
            assert files(tmp_path / "state" / "staged") == set()


async def test_of_a_newer_model_only_what_is_new_is_fetched(tmp_path: Path, there: Path) -> None:
    """The layers that both have are served from where they lie."""
    async with running_fake_registry() as fake:
        fake.add_model("library/theirs:latest", {MODEL_TYPE: BIG, "application/vnd.ollama.image.license": b"new"})
        async with also_from(tmp_path, there, fake=fake) as (mirror, client):
            await proven(mirror, BIG, SMALL, CONFIG)
            manifest = await client.manifest(TAG)
            assert Digest.of(b"new") in {one.digest for one in manifest.blobs}
            assert await ask(client, b"new") == (200, b"new")
            assert await ask(client, BIG) == (200, BIG)
            assert fake.blob_bytes_sent(Digest.of(BIG)) == 0


async def test_it_stands_in_for_an_upstream_that_is_down(tmp_path: Path, there: Path) -> None:
    """As a stored model does."""
    async with running_fake_registry() as fake:
        fake.faults.add(Fault(Wrong.STATUS, value=500))
        async with also_from(tmp_path, there, fake=fake) as (mirror, client):
            await proven(mirror, BIG, SMALL, CONFIG)
            answer = await client.get(TAG)
            assert (answer.body, answer.cache) == (manifest_of(BIG, SMALL).raw, "STALE")


async def test_prefetched_it_is_ours(tmp_path: Path, there: Path) -> None:
    """A manifest in our tree has all its blobs there; they are fetched, and what is ours may be removed."""
    async with running_fake_registry() as fake:
        manifest = fake.add_model("library/theirs:latest", {MODEL_TYPE: BIG})
        async with also_from(tmp_path, there, fake=fake) as (mirror, client):
            await proven(mirror, BIG)
            await mirror.parts.puller.pull(NAME, lambda _: None)
            assert mirror.parts.store.complete.find(NAME) is not None
            assert blob(tmp_path / "store", BIG).read_bytes() == BIG
            [view] = json.loads((await client.get("/mirror/v1/models")).body)["models"]
            assert (view["from"], view["digest"]) == (None, str(manifest.digest))
            assert await mirror.parts.store.remove(NAME) is not None


async def test_a_restart_does_not_hash_again(tmp_path: Path, there: Path) -> None:
    """Terabytes take hours. What shows it: a file that was changed so that no stat tells is taken for the same."""
    async with also_from(tmp_path, there) as (mirror, _):
        await proven(mirror, BIG, SMALL, CONFIG)

        async def saved() -> bool:
            proofs = tmp_path / "state" / "proven.json"
            return proofs.exists() and len(json.loads(proofs.read_bytes())) == 3

        await eventually(saved)
    before = blob(there, SMALL).stat()
    blob(there, SMALL).write_bytes(bytes(len(SMALL)))
    os.utime(blob(there, SMALL), ns=(before.st_atime_ns, before.st_mtime_ns))
    async with also_from(tmp_path, there) as (mirror, _):
        assert mirror.parts.store.extra.find_whole(NAME) is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"/x": 1}', b'{"/x": [1, 2, 3, "z"]}', b"[" * 100_000])
async def test_proofs_that_cannot_be_read_are_made_again(tmp_path: Path, there: Path, content: bytes) -> None:
    """They are worth hours, and no more than that."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "proven.json").write_bytes(content)
    async with also_from(tmp_path, there) as (mirror, _):
        await proven(mirror, BIG, SMALL, CONFIG)


async def test_a_folder_may_go_and_come_back(tmp_path: Path, there: Path) -> None:
    """It may be on a disk that is not always there; nothing else must suffer."""
    async with also_from(tmp_path, tmp_path / "never", there) as (mirror, client):
        await proven(mirror, BIG, SMALL, CONFIG)
        there.rename(tmp_path / "away")
        assert (await ask(client, BIG))[0] == 404

        async def unlisted() -> bool:
            return bool(json.loads((await client.get("/api/tags")).body)["models"] == [])

        await eventually(unlisted)
        assert (await client.get("/readyz")).status == 200
        (tmp_path / "away").rename(there)
        await proven(mirror, BIG)
        assert await ask(client, BIG) == (200, BIG)


async def test_what_its_ollama_does_is_noticed(tmp_path: Path, there: Path) -> None:
    """Models come and go there as they like."""
    other = NAME.with_tag("other")
    async with also_from(tmp_path, there) as (mirror, client):
        await proven(mirror, BIG, SMALL, CONFIG)
        ollama_pulls(there, other, b"other", hours_ago=1)
        ollama_deletes(there, NAME, BIG)

        async def listed() -> bool:
            models = json.loads((await client.get("/api/tags")).body)["models"]
            return [one["name"] for one in models] == ["theirs:other"]

        await eventually(listed)
        assert (await client.get(TAG)).status == 404


async def test_what_is_no_model_there_disturbs_nothing(tmp_path: Path, there: Path) -> None:
    """It is not ours to tidy up, nor to complain of."""
    for path in ("manifests/h/n/m/.tmp", "manifests/h/n/short", "manifests/registry.ollama.ai/library/bad/latest"):
        (there / path).parent.mkdir(parents=True, exist_ok=True)
        (there / path).write_bytes(b"{")
    (there / "blobs" / f"sha256-{'a' * 64}-partial").write_bytes(b"?")
    os.mkfifo(there / "blobs" / f"sha256-{'b' * 64}")
    (there / "blobs" / f"sha256-{'c' * 64}").symlink_to("nowhere")
    async with also_from(tmp_path, there) as (mirror, client):
        await proven(mirror, BIG, SMALL, CONFIG)
        assert [one.name for one in mirror.parts.store.whole_models()] == [NAME]
        assert (await client.get("/v2/library/bad/manifests/latest")).status == 404


async def test_the_stores_own_folder_is_not_read_twice(tmp_path: Path) -> None:
    """Our own models must not seem to be somebody else's."""
    async with also_from(tmp_path, tmp_path / "store") as (mirror, _):
        assert not mirror.parts.store.extra


async def test_a_model_is_whole_with_what_both_have(tmp_path: Path, there: Path) -> None:
    """And what the first of two folders has wrong, the second may have right."""
    second = tmp_path / "second"
    ollama_pulls(second, NAME, BIG, SMALL, hours_ago=1)
    blob(there, BIG).write_bytes(bytes(len(BIG)))
    age(blob(there, BIG), 1)
    blob(second, CONFIG).unlink()
    async with also_from(tmp_path, there, second) as (mirror, client):
        await proven(mirror, BIG, SMALL, CONFIG)
        assert (await client.get(TAG)).status == 200
        blob(there, CONFIG).unlink()
        await mirror.parts.store.extra.look()
        assert (await client.get(TAG)).status == 404
        await mirror.parts.store.put_small_blob(CONFIG)
        assert (await client.get(TAG)).status == 200
        assert manifest_path(there, NAME).exists()
