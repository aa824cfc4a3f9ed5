"""``mirror outdated`` and ``mirror update``: what is newer upstream, found out and fetched."""

import json
from pathlib import Path

from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.process import Ended, mirror
from tests.support import add_blob


async def command(store: Path, upstream: str, *arguments: str) -> Ended:
    """Run a command on a store that nobody holds."""
    env = {"OLLAMA_MIRROR_UPSTREAM_URL": upstream, "OLLAMA_MIRROR_UPSTREAM_RETRY_ATTEMPTS": "0"}
    return await mirror(*arguments, "--store", str(store), env=env)


async def test_what_has_changed_is_listed_and_fetched(tmp_path: Path) -> None:
    """And nothing else: a model that is current costs one question, one that is gone upstream stays."""
    store = tmp_path / "store"
    async with running_fake_registry() as fake:
        for name in ("current", "changed", "gone"):
            add_blob(fake, 1000, f"library/{name}:latest", seed=len(name))
        assert (await command(store, fake.url, "prefetch", "current", "changed", "gone")).code == 0
        add_blob(fake, 2000, "library/changed:latest", seed=99)
        fake.withdraw("library/gone:latest")
        sent = fake.blob_bytes_sent()
        listed = await command(store, fake.url, "outdated")
        assert [line.split()[:2] for line in listed.out.splitlines()[1:3]] == [
            ["changed:latest", "outdated"],
            ["gone:latest", "gone"],
        ]
        assert "2.0 kB of 2.0 kB" in listed.out
        assert "1 of 3 are what is upstream" in listed.out
        assert fake.blob_bytes_sent() == sent
        assert "changed:latest is queued" in (await command(store, fake.url, "update", "--tonight")).out
        assert (await command(store, fake.url, "update")).code == 0
        assert fake.blob_bytes_sent() - sent < 3000
        found = json.loads((await command(store, fake.url, "outdated", "--json", "changed")).out)
        assert [(one["name"], one["state"]) for one in found] == [("changed:latest", "current")]
        assert "everything is what is upstream" in (await command(store, fake.url, "update", "changed")).out
        assert "gone:latest" in (await command(store, fake.url, "list")).out


async def test_an_upstream_that_is_away_is_said(tmp_path: Path) -> None:
    """A model that could not be asked about is not called current."""
    store = tmp_path / "store"
    async with running_fake_registry() as fake:
        add_blob(fake, 1000)
        assert (await command(store, fake.url, "prefetch", "m")).code == 0
        fake.faults.add(Fault(Wrong.STATUS, "manifest", value=503, times=10))
        listed = await command(store, fake.url, "outdated")
    assert ("unknown" in listed.out, "503" in listed.out, listed.code) == (True, True, 0)
