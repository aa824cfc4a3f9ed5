"""What the policy hides is told nowhere: neither in lists, nor by name, nor on the home page."""

import json
from pathlib import Path

from mirror.access import Keyring, Scope
from tests.fakes.registry import running_fake_registry
from tests.support import Machine, add_blob, mirrored

PAGES = ("/", "/mirror/models", "/mirror/models/secret:latest", "/mirror/pulls", "/mirror/ollamas")
LOOKS = (
    "/mirror/v1/models",
    "/mirror/v1/models/secret:latest",
    "/mirror/stats",
    "/mirror/v1/store",
    "/mirror/v1/store/pins",
    "/mirror/v1/queue",
    "/mirror/v1/queue/history",
    "/metrics",
    *PAGES,
)


async def _tellers(client: Machine, name: str, shown: str) -> set[str]:
    """Where a name is told."""
    found = set()
    for path in LOOKS:
        accept = "text/html" if path in PAGES else "*/*"
        answer = await client.get(path, Accept=accept, Authorization=f"Bearer {shown}")
        told = answer.body.decode().replace("secret:latest is not in the store", "")
        assert answer.status in (200, 404), path
        if name in told:
            found.add(path)
    return found


async def test_a_hidden_model_is_told_to_admins_alone(tmp_path: Path) -> None:
    """A rule that refuses a model is little worth where everybody reads that it is here, and who wanted it."""
    ring = Keyring(tmp_path / "state")
    secrets = {scope: str(ring.add(scope.value, [scope])[1]) for scope in (Scope.PULL, Scope.ADMIN)}
    changes = {"cache__pinned": ("secret", "plain")}
    async with running_fake_registry() as fake:
        for seed, name in enumerate(("plain", "secret")):
            add_blob(fake, 1000, f"library/{name}:latest", seed)
        async with mirrored(tmp_path, fake, **changes) as (mirror, client):
            for name in ("plain", "secret"):
                async with client.session.post(
                    client.url("/mirror/v1/queue/add"),
                    json={"name": name, "at_once": True},
                    headers={"Authorization": f"Bearer {secrets[Scope.ADMIN]}"},
                ) as asked:
                    assert asked.status == 202
                async with client.session.post(
                    client.url("/mirror/v1/pulls"),
                    json={"name": name},
                    headers={"Authorization": f"Bearer {secrets[Scope.ADMIN]}"},
                ) as pulled:
                    assert json.loads((await pulled.read()).splitlines()[-1])["status"] == "success"
            open_to = await _tellers(client, "secret", secrets[Scope.PULL])
            assert {"/mirror/v1/models", "/mirror/v1/models/secret:latest", "/mirror/stats", *PAGES[1:4]} <= open_to
        rule = {"security__rules": [{"deny": ["secret"], "users": ["pull"]}]}
        async with mirrored(tmp_path, fake, **changes, **rule) as (mirror, client):
            assert len(mirror.parts.store.complete) == 2
            told = await _tellers(client, "secret", secrets[Scope.PULL])
            assert told <= {"/mirror/v1/store/pins", "/mirror/v1/store"}, "the patterns of pins are the admin's words"
            pins = json.loads(
                (await client.get("/mirror/v1/store/pins", Authorization=f"Bearer {secrets[Scope.PULL]}")).body
            )
            assert [one["models"] for one in pins["pins"]] == [[], ["plain:latest"]]
            assert "/mirror/v1/models" in await _tellers(client, "plain", secrets[Scope.PULL])
            assert await _tellers(client, "secret", secrets[Scope.ADMIN]) == open_to
