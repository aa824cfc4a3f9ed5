"""How often is asked again, after what pauses, and on whose behalf."""

import asyncio
import http.client
import ssl
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the stubs are not installed
import pytest
from yarl import URL

from mirror.errors import NotFoundUpstream, RateLimited, StaleAddress, UpstreamUnavailable
from mirror.fill.once import Once
from mirror.fill.setbacks import Setbacks
from mirror.upstream import Address, Transfer
from mirror.upstream.budget import Budget
from mirror.upstream.carrier import Carrier
from mirror.upstream.connections import Connections
from mirror.values import ByteRange
from tests.fakes.registry import running_fake_registry
from tests.support import SOON_S, add_blob, eventually, upstream

DOWN = UpstreamUnavailable("down")


def setbacks(attempts: int = 3) -> Setbacks:
    """Failures with pauses of 1, 2, 4 seconds."""
    return Setbacks(attempts, 1.0, lambda: 1.0)


def test_pauses_double_until_it_is_enough() -> None:
    """As many further tries as the settings say."""
    some, pauses = setbacks(), []
    for _ in range(3):
        some.add(DOWN, some.round, 100.0, at_once=False)
        pauses.append(some.resume_at - 100)
    with pytest.raises(UpstreamUnavailable):
        some.add(DOWN, some.round, 100.0, at_once=False)

    assert pauses == [1, 2, 4]


def test_connections_that_fail_together_count_once() -> None:
    """Sixteen resets at the same moment are one bad moment."""
    some = setbacks()
    for _ in range(16):
        some.add(DOWN, 0, 100.0, at_once=False)

    assert (some.in_a_row, some.resume_at) == (1, 101.0)


def test_a_byte_begins_the_count_anew() -> None:
    """Trouble is what brings nothing."""
    some = setbacks()
    for _ in range(20):
        some.add(DOWN, some.round, 100.0, at_once=False)
        some.overcome()

    assert some.resume_at == 101.0


def test_what_cannot_pass_is_raised_at_once() -> None:
    """Also when another connection of the round has failed before."""
    some = setbacks()
    some.add(DOWN, 0, 100.0, at_once=False)
    with pytest.raises(NotFoundUpstream):
        some.add(NotFoundUpstream("gone"), 0, 100.0, at_once=False)


@pytest.mark.parametrize(("said", "pause"), [(0.0, 0.0), (7.0, 7.0), (3600.0, 30.0), (None, 1.0)])
def test_retry_after_is_kept_to_within_reason(said: float | None, pause: float) -> None:
    """Half a minute is the most that anybody is kept waiting for one try."""
    some = setbacks()
    some.add(RateLimited("busy", said), 0, 100.0, at_once=False)

    assert some.resume_at == 100 + pause


def test_an_expired_address_costs_no_pause_the_first_time() -> None:
    """It is asked for anew; when that one is refused as well, something else is wrong."""
    some = setbacks()
    some.add(StaleAddress("403"), some.round, 100.0, at_once=True)
    assert some.resume_at == 100.0
    some.add(StaleAddress("403"), some.round, 100.0, at_once=True)
    assert some.resume_at == 102.0


async def test_one_question_is_asked_for_all() -> None:
    """And again by who comes after the answer."""
    once: Once[int | None] = Once()
    asked: list[int] = []

    async def ask() -> None:
        asked.append(1)
        await asyncio.sleep(0)

    for rounds in (1, 2):
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(once.ask("key", ask))
        assert len(asked) == rounds, "None is an answer like any other"


async def test_other_questions_do_not_wait() -> None:
    """A key of its own is asked at once."""
    once: Once[str] = Once()
    never = asyncio.Event()

    async def stuck() -> str:
        await never.wait()
        return "late"

    async def quick() -> str:
        return "now"

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(once.ask("a", stuck))
        assert await once.ask("b", quick) == "now"
        never.set()
    assert waiting.result() == "late"


def test_a_transfer_is_shortened_only_where_nothing_was_asked_for_yet() -> None:
    """What a thread has asked its socket for is on its way."""
    transfer = Transfer(ByteRange(100, 1000), lambda *_: None, urgent=lambda: True)
    assert transfer.shorten(100) is None
    assert transfer.claim(300) == 300
    assert transfer.shorten(399) is None
    assert transfer.shorten(400) == ByteRange(400, 1000)
    assert transfer.shorten(400) is None
    transfer.at = 400
    assert transfer.claim(300) == 0
    transfer.stop()
    assert transfer.span == ByteRange(100, 400)


async def test_connections_that_no_transfer_comes_after_are_closed_too(tmp_path: Path) -> None:
    """After a night of pulls there would be dozens of them, ended by the other side, until the next night."""
    async with running_fake_registry(redirects=False) as fake, upstream(tmp_path, fake.url) as up:
        content, digest = add_blob(fake, 1000)
        address = await up.locate("library/m", digest, len(content))
        into = bytearray(len(content))

        def sink(offset: int, piece: bytes | memoryview) -> None:
            into[offset : offset + len(piece)] = piece

        async def as_before() -> bool:
            return _open_to(fake.url) == before

        carrier = Carrier(
            threads=1,
            connect_timeout_s=SOON_S,
            stall_timeout_s=SOON_S,
            budget=Budget(None),
            ahead=Budget(None),
            tls=ssl.create_default_context(),
            idle_s=0.3,
        )
        before = _open_to(fake.url)
        try:
            transfer = Transfer(ByteRange(0, len(content)), sink, urgent=lambda: True)
            await carrier.carry(address, transfer, up.guard)
            assert _open_to(fake.url) == before + 1
            await eventually(as_before)
        finally:
            carrier.close()
    assert bytes(into) == content


def _open_to(url: str) -> int:
    """How many connections this process has to a server."""
    connections = psutil.Process().net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr.port == URL(url).port for one in connections)


def test_idle_connections_are_kept_for_a_while_and_not_too_many() -> None:
    """Routers forget them without a word, and each is an open file."""
    now = [0.0]
    pool = Connections(
        most=2, connect_timeout_s=1, stall_timeout_s=1, tls=ssl.create_default_context(), now=lambda: now[0]
    )
    here, there = (Address(URL(f"http://{host}/x"), 1, {}) for host in ("here", "there"))
    made = [http.client.HTTPConnection("here") for _ in range(3)]
    for connection in made:
        pool.keep(here, connection)

    assert pool.reused(there) is None
    assert pool.reused(here) is made[2]
    assert pool.reused(here) is made[1]
    assert pool.reused(here) is None
    pool.keep(here, made[0])
    now[0] += 16
    assert pool.reused(here) is None
    pool.close()
    pool.keep(here, made[0])
    assert pool.reused(here) is None
