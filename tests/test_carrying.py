"""Bundles by command and by route: out of one store, into an empty one, which then serves it without an upstream."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from mirror.values import ByteRange, Digest
from tests.fakes.registry import running_fake_registry
from tests.process import mirror, serving
from tests.stored import files
from tests.support import Machine, add_blob, blob_path, machine

SIZE = 3_000_000
NOWHERE = "http://127.0.0.1:9"


async def test_export_on_one_store_import_on_another_which_serves_it_offline(tmp_path: Path) -> None:
    """The way to a room without a line: nothing but the file is carried over."""
    content, digest = await filled(tmp_path / "a", "m0", "m1")
    bundle = tmp_path / "models.tar"
    sent = await mirror("export", "m0", "m1", "-o", str(bundle), "--store", str(tmp_path / "a"), "--json")
    assert sent.code == 0, sent.err
    assert json.loads(sent.out)["models"] == ["m0:latest", "m1:latest"]
    taken = await mirror("import", str(bundle), "--store", str(tmp_path / "b"))
    assert taken.code == 0, taken.err
    assert taken.out.splitlines()[:2] == ["m0:latest", "m1:latest"]
    async with serving(tmp_path / "b", NOWHERE, "--offline") as (url, _), machine(url) as client:
        assert (await client.get(blob_path(digest, "library/m0"))).body == content
        part = await client.get(blob_path(digest, "library/m0"), ByteRange(7, 1_000_007))
        assert part.body == content[7:1_000_007]
    assert files(tmp_path / "a" / "blobs") == files(tmp_path / "b" / "blobs")


async def test_running_mirrors_give_and_take_bundles(tmp_path: Path) -> None:
    """The commands do not care whether a server holds the store; nothing is ever written past it."""
    await filled(tmp_path / "a", "m0", "m1")
    bundle, later = tmp_path / "first.tar", tmp_path / "second.tar"
    async with serving(tmp_path / "a", NOWHERE) as (url, _):
        first = await mirror("export", "m0", "-o", str(bundle), "--server", url)
        assert first.code == 0, first.err
        whole = bundle.read_bytes()
        bundle.rename(bundle.with_name("first.tar.partial"))
        with bundle.with_name("first.tar.partial").open("r+b") as file:
            file.truncate(len(whole) // 2)
        assert (await mirror("export", "m0", "-o", str(bundle), "--server", url)).code == 0
        assert bundle.read_bytes() == whole, "gone on with, it is the same"
        since = await mirror("export", "--all", "-o", str(later), "--since", str(bundle), "--server", url)
        assert since.code == 0, since.err
        assert later.stat().st_size < len(whole) * 1.1, "m0's blobs are left out"
        unknown = await mirror("export", "m7", "-o", str(tmp_path / "no.tar"), "--server", url)
        assert (unknown.code, unknown.err) == (1, "mirror: no complete model in the store is m7\n")
    async with serving(tmp_path / "b", NOWHERE) as (url, _):
        early = await mirror("import", str(later), "--server", url)
        assert early.code == 1
        assert "lack blobs that are nowhere to be found" in early.err
        for path in (bundle, later):
            done = await mirror("import", str(path), "--server", url)
            assert done.code == 0, done.err
        listed = await mirror("list", "--server", url, "--json")
        assert {one["name"] for one in json.loads(listed.out)} == {"m0:latest", "m1:latest"}
        folder = await mirror("import", str(tmp_path / "a"), "m1", "--server", url)
        assert folder.code == 0, folder.err
        assert "0 new blobs" in folder.out


async def test_a_bundle_through_a_pipe(tmp_path: Path) -> None:
    """``export -o - | ssh other mirror import -`` needs no room for a file."""
    await filled(tmp_path / "a", "m0")
    command = f"{sys.executable} -m mirror export m0 -o - --store a | {sys.executable} -m mirror import - --store b"
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "m0:latest" in done.stdout


async def test_a_refused_upload_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    """However much is still to be sent: who sends it is told why, and not that a connection broke."""
    await filled(tmp_path / "a", "m0")
    bundle = tmp_path / "m.tar"
    assert (await mirror("export", "m0", "-o", str(bundle), "--store", str(tmp_path / "a"))).code == 0
    content = bytearray(bundle.read_bytes())
    content[SIZE // 2] ^= 1
    bundle.write_bytes(bytes(content) + noise_after())
    async with serving(tmp_path / "b", NOWHERE) as (url, _):
        before = files(tmp_path / "b")
        refused = await mirror("import", str(bundle), "--server", url)
        assert refused.code == 1
        assert len(refused.err.splitlines()) == 1
        assert "sha256" in refused.err
        assert files(tmp_path / "b") == before
        assert files(tmp_path / "b.state" / "tmp") == set()
    missing = await mirror("import", str(tmp_path / "none.tar"), "--store", str(tmp_path / "b"))
    assert missing.err == f"mirror: cannot read {tmp_path / 'none.tar'}: No such file or directory\n"


def noise_after() -> bytes:
    """So many bytes that they do not fit into the buffers between two programs."""
    return bytes(20_000_000)


async def test_the_routes_refuse_what_they_cannot_do(tmp_path: Path) -> None:
    """A problem with a sentence in it, for every wrong body."""
    await filled(tmp_path / "a", "m0")
    async with serving(tmp_path / "a", NOWHERE) as (url, _), machine(url) as client:
        for route, body, said in (
            ("export", {}, "no models"),
            ("export", {"names": ["m9"]}, "m9"),
            ("export", {"names": [7]}, "list of texts"),
            ("export", {"names": ["m0"], "start": 1 << 40}, "start"),
            ("export", {"names": ["m0"], "since": ["x"]}, "digest"),
            ("import", {}, "application/x-tar"),
            ("import", {"folder": str(tmp_path / "none")}, "none"),
            ("import", {"folder": "/srv/\0"}, "printable"),
            ("import", {"folder": "/srv/\ud800"}, "printable"),
        ):
            assert said in await refused(client, route, body), (route, body)


async def refused(client: Machine, route: str, body: object) -> str:
    """Ask; the sentence of the refusal, whether it comes as a problem or as the last step."""
    async with client.session.post(client.url(f"/mirror/v1/store/{route}"), json=body) as answer:
        last = json.loads((await answer.text()).splitlines()[-1])
        assert answer.status == 400 or "error" in last
        return str(last.get("detail") or last.get("error"))


async def filled(store: Path, *names: str) -> tuple[bytes, Digest]:
    """A store with these models in it, and nobody at it; the blob of the first."""
    async with running_fake_registry() as fake:
        blobs = [add_blob(fake, SIZE, f"library/{name}:latest", seed=at) for at, name in enumerate(names)]
        done = await mirror("prefetch", *names, "--store", str(store), env={"OLLAMA_MIRROR_UPSTREAM_URL": fake.url})
        assert done.code == 0, done.err
        return blobs[0]
