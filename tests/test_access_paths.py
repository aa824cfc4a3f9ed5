"""Paths that look like others: what is asked for is said by one part of them, and models may be called anything."""

from pathlib import Path

import aiohttp

from mirror.access import Keyring, Scope
from mirror.values import ByteRange
from tests.access import Signer, ask, proxied
from tests.fakes.registry import running_fake_registry
from tests.ollama_signer import OllamaSigner
from tests.support import MANIFEST, add_blob, blob_path, machine, mirrored

DIGEST = f"sha256:{'0' * 64}"


COUNTED = (
    ("GET", "/v2/library/m/manifests/latest", True),
    ("HEAD", f"/v2/library/m/blobs/{DIGEST}", False),
    ("GET", "/v2/library/blobs/manifests/latest", True),
    ("HEAD", f"/v2/library/manifests/blobs/{DIGEST}", False),
    ("HEAD", f"/v2/manifests/manifests/blobs/{DIGEST}", False),
    ("DELETE", "/mirror/cache", True),
    ("GET", "/mirror/setup", False),
)


async def test_what_is_counted_is_said_by_the_part_that_says_what_is_asked_for(tmp_path: Path) -> None:
    """A model called ``manifests`` must not use up its user's count by its blobs; emptying the store is counted."""
    limits = {"security__rate_limit_requests": 1, "security__rate_limit_window": "1h"}
    async with proxied(tmp_path, **limits) as (_, client):
        for at, (method, path, counted) in enumerate(COUNTED):
            caller = {"X_Forwarded_For": f"192.168.7.{at}"}
            found = [(await ask(client, path, caller, method=method)).status for _ in range(2)]
            assert (found[1] == 429) is counted, (path, found)
    async with proxied(tmp_path) as (_, client):
        beside = await ask(client, "/mirror/setup/x", {"X_Forwarded_For": "192.168.7.7"})
        assert beside.status == 403, "what has no route needs everything"


async def test_the_data_address_gives_no_manifest_of_a_model_called_blobs(tmp_path: Path) -> None:
    """There is nothing at the data address but the bytes of blobs: a firewall may be open there for more machines."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, listen__data="127.0.0.1:0") as (_, client):
        _, digest = add_blob(fake, 1000, "library/blobs:latest")
        await client.get("/v2/library/blobs/manifests/latest")
        pointed = await client.get(blob_path(digest, "library/blobs"))
        assert pointed.status == 307
        data = pointed.headers["Location"].partition("/v2/")[0]
        async with machine(data) as there:
            assert (await there.get("/v2/library/blobs/manifests/latest")).status == 404
            assert (await there.get("/v2/library/blobs/tags/list")).status == 404
            assert len((await there.get(blob_path(digest, "library/blobs"))).body) == 1000


async def test_a_refused_range_of_a_model_called_blobs_has_an_empty_body_only_for_blobs(tmp_path: Path) -> None:
    """Its manifest is refused with the sentence that its user is to read."""
    Keyring(tmp_path / "state").add("laptop", [Scope.PULL], ollama=Signer().line)
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        manifest = await client.get("/v2/library/blobs/manifests/latest", Range="bytes=0-9")
        assert (manifest.status, b"this needs a key" in manifest.body) == (401, True)
        blob = await client.get(f"/v2/library/blobs/blobs/{DIGEST}", Range="bytes=0-9")
        assert (blob.status, blob.body) == (401, b"")


async def test_who_shows_a_key_gets_a_new_ticket_for_an_old_one(tmp_path: Path) -> None:
    """A pull that goes on the next day would else be led to a ticket that has ended; by a ticket none is had."""
    async with aiohttp.ClientSession() as session, running_fake_registry() as fake:
        ollama = OllamaSigner(session)
        Keyring(tmp_path / "state").add("laptop", [Scope.PULL], ollama=ollama.public)
        async with mirrored(tmp_path, fake, security__ticket_ttl=1000) as (_, client):
            _, digest = add_blob(fake, 1000)
            token = await ollama((await client.get(MANIFEST)).headers["WWW-Authenticate"])
            bearer = {"Authorization": f"Bearer {token}"}
            first = (await ask(client, blob_path(digest), bearer)).headers["Location"]
            old = f"{blob_path(digest)}?ticket=old.1.{'A' * 22}"
            renewed = (await ask(client, old, bearer)).headers["Location"]
            assert "old.1" not in renewed
            assert (await client.get(renewed, ByteRange(0, 10))).status == 206
            assert (await client.get(first)).headers["Location"] == first
            unknown = await ask(client, first, {"Authorization": "Bearer what-old-clients-say"})
            assert unknown.headers["Location"] == first, "what is not believed makes no ticket longer"
