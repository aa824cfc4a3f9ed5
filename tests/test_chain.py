"""Mirrors of mirrors, and what keeps a ring of them from asking itself for ever."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mirror.app import running_mirror
from mirror.upstream.chain import Chain
from tests.fakes.registry import running_fake_registry
from tests.net import free_port
from tests.support import MANIFEST, add_blob, blob_path, machine, mirrored, settings


def folder(tmp_path: Path, name: str) -> Path:
    """A folder for one mirror."""
    made = tmp_path / name
    made.mkdir()
    return made


async def test_a_mirror_of_a_mirror_fills_both(tmp_path: Path) -> None:
    """A school's mirror behind its district's: each byte crosses each line once."""
    async with running_fake_registry() as fake, mirrored(folder(tmp_path, "far"), fake) as (far, _):
        content, digest = add_blob(fake, 3_000_000)
        near = settings(folder(tmp_path, "near"), far.url)
        async with running_mirror(near) as mirror, machine(mirror.url) as client:
            for _ in range(2):
                await client.manifest()
                assert (await client.get(blob_path(digest))).body == content
        assert fake.blob_bytes_sent(digest) == len(content) + 1  # one byte to find it
        via = [one.headers["Via"] for one in fake.asked("manifest")]
        assert [one.count("mirror-") for one in via] == [2]


async def test_where_blobs_are_redirected_to_hears_nothing_of_the_chain(tmp_path: Path) -> None:
    """A signed address is another company's machine."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        _, digest = add_blob(fake, 1000)
        await client.get(blob_path(digest))
        assert {"Via" in one.headers for one in fake.log if one.kind == "blob"} == {False}
        assert {"Via" in one.headers for one in fake.log if one.kind == "redirect"} == {True}


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_ring_is_found_at_once(count: int, tmp_path: Path) -> None:
    """A mirror whose DNS says that the registry is the mirror itself, and rings of several."""
    ports = [free_port() for _ in range(count)]
    async with AsyncExitStack() as stack:
        for index, port in enumerate(ports):
            above = f"http://127.0.0.1:{ports[(index + 1) % count]}"
            said = settings(folder(tmp_path, str(index)), above, listen__addresses=[f"127.0.0.1:{port}"])
            await stack.enter_async_context(running_mirror(said))
        client = await stack.enter_async_context(machine(f"http://127.0.0.1:{ports[0]}"))
        async with asyncio.timeout(4):
            for path in (MANIFEST, f"/v2/library/m/blobs/sha256:{'0' * 64}"):
                answer = await client.get(path)
                assert answer.status == 508
                assert b"leads back to this mirror" in answer.body


def test_only_mirrors_count_in_a_via() -> None:
    """Ordinary proxies add theirs; they are no ring."""
    chain = Chain()
    own = chain.via().removeprefix("1.1 ")
    assert not chain.leads_back("1.1 proxy.corp, 1.0 squid (x)")
    assert chain.leads_back(f"1.1 proxy.corp, 1.1 {own}")
    assert chain.leads_back(f"1.1 {own} (comment), 1.1 other")
    assert not chain.leads_back("1.1 mirror-xyz, 1.1 mirror-0123")
    others = [f"1.1 mirror-{number:012x}" for number in range(8)]
    assert chain.leads_back(", ".join(others))
    assert not chain.leads_back(", ".join(others[:7]))


def test_what_is_asked_says_where_it_came_from() -> None:
    """And the next request on the same connection does not."""
    chain = Chain()
    with chain.coming_through("1.1 proxy.corp, 1.1 mirror-0123456789ab"):
        assert chain.via().startswith("1.1 mirror-0123456789ab, 1.1 mirror-")
    assert chain.via().count("mirror-") == 1


async def test_a_ring_that_is_asked_from_both_sides_at_once(tmp_path: Path) -> None:
    """Each waits for the other's answer, unless a question that came through a mirror is a question of its own."""
    ports = [free_port(), free_port()]
    async with AsyncExitStack() as stack:
        for index, port in enumerate(ports):
            above = f"http://127.0.0.1:{ports[1 - index]}"
            said = settings(folder(tmp_path, str(index)), above, listen__addresses=[f"127.0.0.1:{port}"])
            await stack.enter_async_context(running_mirror(said))
        clients = [await stack.enter_async_context(machine(f"http://127.0.0.1:{port}")) for port in ports]
        for path in (MANIFEST, f"/v2/library/m/blobs/sha256:{'0' * 64}"):
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                answers = [group.create_task(client.get(path)) for client in clients]
            assert [answer.result().status for answer in answers] == [508, 508]


async def test_who_invents_a_chain_harms_nobody_else(tmp_path: Path) -> None:
    """The far mirror counts too many mirrors and refuses; that answer is for the one who said so."""
    invented = ", ".join(f"1.1 mirror-{number:012x}" for number in range(7))
    async with running_fake_registry() as fake, mirrored(folder(tmp_path, "far"), fake) as (far, _):
        content, digest = add_blob(fake, 1_000_000)
        async with running_mirror(settings(folder(tmp_path, "near"), far.url)) as near, machine(near.url) as client:
            for path, right in ((MANIFEST, None), (blob_path(digest), content)):
                async with asyncio.TaskGroup() as group:
                    liar = group.create_task(client.get(path, Via=invented))
                    others = [group.create_task(client.get(path)) for _ in range(3)]
                assert liar.result().status == 508
                for other in others:
                    assert other.result().status == 200
                    assert right in (None, other.result().body)
