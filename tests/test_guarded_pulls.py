"""Pulling where that needs a key: Ollama signs for a token, and its ranges come with a ticket instead."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from mirror.access import Keyring, Scope
from mirror.demo.ollama import PullFailed, pull
from mirror.values import ByteRange
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.ollama_signer import OllamaSigner
from tests.support import MANIFEST, Machine, add_blob, blob_path, machine, mirrored
from tests.ways import HOST, doors

SIZE = 3_000_000


@dataclass(frozen=True, slots=True)
class Guarded:
    """A mirror where pulling needs a key, and an Ollama that has one."""

    url: str
    client: Machine
    fake: FakeRegistry
    ollama: OllamaSigner
    keyring: Keyring


@asynccontextmanager
async def guarded(folder: Path, **changes: Any) -> AsyncIterator[Guarded]:
    """The key of the Ollama is good for pulling."""
    (folder / "state").mkdir()
    keyring = Keyring(folder / "state")
    async with aiohttp.ClientSession() as session, running_fake_registry() as fake:
        ollama = OllamaSigner(session)
        keyring.add("laptop", [Scope.PULL], ollama=ollama.public)
        async with mirrored(folder, fake, **changes) as (mirror, client):
            yield Guarded(mirror.url, client, fake, ollama, keyring)


async def challenge(client: Machine) -> str:
    """What a client without a token is told."""
    answer = await client.get(MANIFEST)
    assert answer.status == 401
    return answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("data", [{}, {"listen__data": "127.0.0.1:0"}])
async def test_an_ollama_with_a_key_pulls_and_one_without_does_not(data: dict[str, Any], tmp_path: Path) -> None:
    """Its ranges carry no token: the Location that it asked for with one lets them in."""
    async with guarded(tmp_path, **data) as there:
        content, _ = add_blob(there.fake, SIZE)
        for folder in ("cold", "warm"):
            report = await pull(there.url, "library/m:latest", tmp_path / folder, token=there.ollama, part_min=500_000)
            assert report.bytes > len(content)
            assert sum(one.status == 401 for one in report.requests) == 1
            ranged = [URL(one.url) for one in report.requests if one.range]
            assert all(url.query.get("ticket") for url in ranged)
        with pytest.raises(PullFailed, match="401"):
            await pull(there.url, "library/m:latest", tmp_path / "none")
        stranger = OllamaSigner(there.client.session)
        with pytest.raises(PullFailed, match="does not know the key of this Ollama"):
            await pull(there.url, "library/m:latest", tmp_path / "none", token=stranger)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_realm_is_where_the_client_came_by(scheme: str, tmp_path: Path) -> None:
    """Through the proxy that is the registry's own name, by http or https; Ollama takes no other."""
    (tmp_path / "state").mkdir()
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        content, _ = add_blob(fake, SIZE)
        connector = aiohttp.TCPConnector(ssl=there.context())
        async with aiohttp.ClientSession(connector=connector, proxy=there.mirror.url) as session:
            ollama = OllamaSigner(session)
            Keyring(tmp_path / "state").add("laptop", [Scope.PULL], ollama=ollama.public)
            async with machine(there.mirror.url) as client:
                await until_guarded(client)
            report = await pull(
                f"{scheme}://{HOST}", "library/m:latest", tmp_path / "in", session=session, token=ollama
            )
    assert report.bytes > len(content)
    assert {one.url.partition("/v2/")[0] for one in report.requests} == {f"{scheme}://{HOST}"}


async def until_guarded(client: Machine) -> None:
    """Wait until a key that was just added counts."""
    end = time.monotonic() + 10
    while (await client.get("/v2/")).status != 401:
        assert time.monotonic() < end


async def test_what_is_wrong_late_or_said_before_gets_no_token(tmp_path: Path) -> None:
    """Who listens on the line, or has an old log, gets nothing by it."""
    async with guarded(tmp_path) as there:
        said, ollama = await challenge(there.client), there.ollama
        url, signed = ollama.request(said)
        public, _, signature = signed.partition(":")
        other, _ = ollama.request(said)
        now = int(time.time())
        for address, authorization in (
            (url, f"{public}:{'A' * len(signature)}"),
            (url, f"{public}:"),
            (url, f"{OllamaSigner(there.client.session).public.split()[1]}:{signature}"),
            (other, signed),
            (f"{url}&x=1", signed),
            ollama.request(said, ts=now - 400),
            ollama.request(said, ts=now + 400),
            ollama.request(said, nonce="short"),
        ):
            assert (await ollama.call(address, authorization))[0] == 401
        assert (await ollama.call(url, signed))[0] == 200
        status, why = await ollama.call(url, signed)
        assert (status, "made before" in why) == (401, True)


async def test_a_ticket_is_good_for_its_blob_and_its_time(tmp_path: Path) -> None:
    """It stands in an address; a range that is refused has an empty body, which Ollama would keep otherwise."""
    async with guarded(tmp_path, security__ticket_ttl=2) as there:
        content, digest = add_blob(there.fake, 1000)
        _, other = add_blob(there.fake, 1000, "library/n:latest", seed=1)
        token = await there.ollama(await challenge(there.client))
        begun = time.monotonic()
        answer = await there.client.get(blob_path(digest), Authorization=f"Bearer {token}")
        where, span = answer.headers["Location"], ByteRange(10, 20)
        ticket = where.partition("?")[2]
        good = await there.client.get(where, span)
        assert (answer.status, good.status, good.body) == (200, 206, content[10:20])
        again = await there.client.get(where)
        assert again.headers["Location"] == where, "a ticket gets no longer one"
        for path in (blob_path(digest), f"{blob_path(other)}?{ticket}", f"{where}x", f"{blob_path(digest)}?ticket="):
            refused = await there.client.get(path, span)
            assert (refused.status, refused.body) == (401, b"")
            assert "needs a key" in refused.headers["X-Mirror-Error"]
        assert (await there.client.get(f"{MANIFEST}?{ticket}")).status == 401
        while (late := await there.client.get(where, span)).status == 206:
            assert time.monotonic() - begun < 10
        assert (late.status, late.body) == (401, b"")


async def test_a_revoked_key_ends_its_tokens_and_tickets(tmp_path: Path) -> None:
    """And the mirror stays closed: nobody meant to open it by that."""
    async with guarded(tmp_path) as there:
        _, digest = add_blob(there.fake, 1000)
        token = await there.ollama(await challenge(there.client))
        bearer = f"Bearer {token}"
        where = (await there.client.get(blob_path(digest), Authorization=bearer)).headers["Location"]
        there.keyring.revoke("laptop")
        end = time.monotonic() + 10
        while (await there.client.get(MANIFEST, Authorization=bearer)).status != 401:
            assert time.monotonic() < end
        assert (await there.client.get(where, ByteRange(0, 10))).status == 401
        assert (await there.client.get(MANIFEST)).status == 401


async def test_a_pull_that_is_open_carries_no_tickets(tmp_path: Path) -> None:
    """Nothing of this is in anybody's way until somebody makes a key."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        _, digest = add_blob(fake, 1000)
        for shown in ("", "Bearer whatever-old-clients-say"):
            answer = await client.get(blob_path(digest), Authorization=shown)
            assert (answer.status, answer.headers["Location"]) == (200, blob_path(digest))
