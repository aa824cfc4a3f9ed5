"""``mirror rollback``, and what ``outdated``, ``update``, ``list`` and ``show`` make of a tag that is held."""

import json
from pathlib import Path
from typing import Any

import pytest

from mirror.values import Manifest
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.process import Ended, mirror, serving
from tests.support import MANIFEST, Machine, add_blob, machine, mirrored

NAME = "library/m:latest"


async def command(where: Path | str, upstream: str, *arguments: str) -> Ended:
    """Run a command on a store that nobody holds, or on the mirror at a URL."""
    env = {"OLLAMA_MIRROR_UPSTREAM_URL": upstream, "OLLAMA_MIRROR_UPSTREAM_RETRY_ATTEMPTS": "0"}
    place = ["--store", str(where)] if isinstance(where, Path) else ["--server", where]
    return await mirror(*arguments, *place, env=env)


async def pulled(fake: FakeRegistry, where: Path | str, *seeds: int) -> list[str]:
    """Have the tag mean one model after the other, each of which is pulled; return their ids."""
    ids = []
    for seed in seeds:
        add_blob(fake, 1000 * seed, NAME, seed)
        ids.append(Manifest.parse(fake.manifest_bytes(NAME)).digest.short)
        assert (await command(where, fake.url, "prefetch", "m")).code == 0
    return ids


async def test_back_held_and_forward_again_on_a_store_that_nobody_holds(tmp_path: Path) -> None:
    """The whole of it by hand."""
    store = tmp_path / "store"
    async with running_fake_registry() as fake:
        old, new = await pulled(fake, store, 1, 2)
        listed = await command(store, fake.url, "rollback", "m", "--list")
        head, row = listed.out.splitlines()
        assert (head.split(), row.split("    ")[0], "1.0 kB" in row, "0 B" in row) == (
            ["ID", "SIZE", "TO", "FETCH", "REPLACED"],
            old,
            True,
            True,
        )
        went = await command(store, fake.url, "rollback", "m")
        assert (went.code, went.out, went.err) == (0, f"m:latest is held at {old}, 0 B fetched now\n", "")
        assert "held" in (await command(store, fake.url, "list")).out.splitlines()[1].split()
        assert "until mirror update names it" in (await command(store, fake.url, "show", "m")).out
        assert json.loads((await command(store, fake.url, "show", "m", "--json")).out)["held"] is True
        behind = await command(store, fake.url, "outdated")
        assert behind.out.splitlines()[1].split("    ")[:2] == ["m:latest", "held"]
        assert f"held at {old}" in behind.out
        assert "0 of 1 are what is upstream" in behind.out
        for words in (["update"], ["prefetch", "m"], ["update", "--tonight"]):
            ended = await command(store, fake.url, *words)
            assert ended.code == 0
            assert words[0] == "prefetch" or ended.out == "1 held, nothing else is newer upstream\n"
            assert old in (await command(store, fake.url, "list")).out
        forward = await command(store, fake.url, "update", "m")
        assert (forward.code, "m:latest is held no more" in forward.out) == (0, True)
        now = (await command(store, fake.url, "list")).out.splitlines()[1]
        assert (new in now, "held" in now) == (True, False)


async def test_a_held_tag_that_is_what_is_upstream_is_let_go_too(tmp_path: Path) -> None:
    """The upstream came back to it by itself."""
    store = tmp_path / "store"
    async with running_fake_registry() as fake:
        await pulled(fake, store, 1, 2)
        assert (await command(store, fake.url, "rollback", "m", "--json")).code == 0
        add_blob(fake, 1000, NAME, 1)
        assert "held at" in (await command(store, fake.url, "outdated")).out
        ended = await command(store, fake.url, "update", "m")
        assert ended.out == "m:latest is held no more\neverything is what is upstream\n"
        assert "held" not in (await command(store, fake.url, "outdated")).out


async def test_the_mirror_that_serves_does_it(tmp_path: Path) -> None:
    """Over HTTP the same; and the next client is told of the earlier manifest."""
    store = tmp_path / "store"
    async with running_fake_registry() as fake, serving(store, fake.url) as (url, _), machine(url) as client:
        a, b, c = await pulled(fake, url, 1, 2, 3)
        listed = json.loads((await command(url, fake.url, "rollback", "m", "--list", "--json")).out)
        assert [one["digest"][7:19] for one in listed] == [b, a]
        assert [(one["size"], one["lacking"]) for one in listed] == [(2000 + 23, 0), (1000 + 23, 0)]
        went = await command(store, fake.url, "rollback", "m", "--to", a, "--json")
        last = json.loads(went.out.splitlines()[-1])
        assert (last["status"], last["digest"][7:19], last["held"]) == ("success", a, True)
        assert Manifest.parse((await client.get(MANIFEST)).body).digest.short == a
        assert (await command(url, fake.url, "update", "m")).code == 0
        assert Manifest.parse((await client.get(MANIFEST)).body).digest.short == c


async def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    """On a store and by a mirror alike: one line, and an exit code."""
    store = tmp_path / "store"
    async with running_fake_registry() as fake:
        old, new = await pulled(fake, store, 1, 2)
        digest = Manifest.parse(fake.manifest_bytes(NAME)).digest
        cases = [
            (["rollback", "other"], 1, "nothing earlier is known of other:latest"),
            (["rollback", "m", "--to", new], 1, f"m:latest is at {new} now"),
            (["rollback", "m", "--to", str(digest)], 1, f"m:latest is at {new} now"),
            (["rollback", "m", "--to", "ffff"], 1, "not known to have meant one that begins with ffff"),
            (["rollback", "m", "--to", "latest"], 2, "invalid digest 'latest'"),
            (["rollback", "m:"], 2, "invalid model name"),
            (["rollback", "m", "--to", old, "--list"], 2, "not both"),
        ]
        for words, code, said in cases:
            ended = await command(store, fake.url, *words)
            assert (ended.code, said in ended.err, ended.out) == (code, True, ""), ended
        async with serving(store, fake.url) as (url, _):
            for words, code, said in cases[:4]:
                ended = await command(url, fake.url, *words)
                assert (ended.code, said in ended.err) == (code, True), ended
        assert (
            "nothing earlier is known of other" in (await command(store, fake.url, "rollback", "other", "--list")).out
        )
        assert new in (await command(store, fake.url, "list")).out


async def test_what_cannot_be_fetched_again_is_said(tmp_path: Path) -> None:
    """And the tag stays as it is."""
    store = tmp_path / "store"
    async with running_fake_registry() as fake:
        add_blob(fake, 1000, NAME, 1)
        [layer] = Manifest.parse(fake.manifest_bytes(NAME)).layers
        old, new = await pulled(fake, store, 1, 2)
        (store / "blobs" / layer.digest.filename).unlink()
        fake.forget(layer.digest)
        ended = await command(store, fake.url, "rollback", "m")
        assert (ended.code, f"m:latest cannot go back to {old}, and stays as it is" in ended.err) == (1, True)
        assert new in (await command(store, fake.url, "list")).out


async def post(client: Machine, path: str, body: Any) -> tuple[int, str]:
    """Call the admin API; return the status and what was said."""
    async with client.session.post(client.url(f"/mirror/v1/models/{path}"), json=body) as reply:
        return reply.status, await reply.text()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("rollback", {}, 400),
        ("rollback", {"name": "m", "to": 5}, 400),
        ("rollback", {"name": "m", "to": "x"}, 400),
        ("rollback", {"name": "m", "digest": "ffff"}, 400),
        ("rollback", {"name": "m:"}, 400),
        ("rollback", {"name": "m"}, 404),
        ("release", {}, 400),
        ("release", {"name": "m"}, 200),
    ],
)
async def test_what_may_be_asked(path: str, body: Any, status: int, tmp_path: Path) -> None:
    """A wrong request changes nothing, and says what a right one is."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        got, said = await post(client, path, body)
        assert got == status
        assert status != 200 or json.loads(said) == {"name": "m:latest", "released": False}
