"""What nobody reads is held to its own rate, a reader lifts that at once, and rates change with the hour."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mirror.app import RunningMirror
from mirror.config import FurtherUpstream
from mirror.config.rates import parse_rates
from mirror.events import Events
from mirror.fill import Fill
from mirror.pulls import Pace
from mirror.upstream import Budget, Transfer, Upstreams
from mirror.values import ByteRange, Digest, ModelName
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.night import NightClock
from tests.process import mirror as command
from tests.support import MODEL, Machine, add_blob, blob_path, eventually, mirrored, settings, until

SIZE = 3_000_000
BURST_S = 0.25
PIECE = 4096
CRAWL: dict[str, Any] = {"pulls__rate": 1, "pulls__windows": []}
"""One byte per second: a blob would take a month."""


@asynccontextmanager
async def crawling(folder: Path, fake: FakeRegistry, **changes: Any) -> AsyncIterator[tuple[RunningMirror, Machine]]:
    """A mirror that fetches a model ahead of which nobody reads a byte, and has come to its limit."""
    async with mirrored(folder, fake, **{**CRAWL, **changes}) as (mirror, client):
        await mirror.parts.queue.ask(MODEL, "ann", at_once=True)
        await until(mirror, lambda: any(fill.fetched for fill in mirror.parts.fills.in_flight))
        yield mirror, client


def fetched(mirror: RunningMirror, digest: Digest) -> int:
    """How many bytes of a blob came by its running fill."""
    fill: Fill | None = mirror.parts.fills.running(digest)
    return fill.fetched if fill is not None else 0


async def test_a_reader_lifts_the_limit_for_its_blob(tmp_path: Path) -> None:
    """All of it comes, from the very connections that crawled until then."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, SIZE)
        async with crawling(tmp_path, fake) as (mirror, client):
            await client.manifest()
            assert fetched(mirror, digest) <= 2 * PIECE
            answer = await client.get(blob_path(digest))
            assert (answer.body == content, answer.cache) == (True, "FILL")
        assert fake.blob_bytes_sent(digest) < SIZE + 600_000


async def test_another_blob_gets_no_faster_by_that(tmp_path: Path) -> None:
    """One reader is no reason to fetch all else that is queued."""
    async with running_fake_registry() as fake:
        _, digest = add_blob(fake, SIZE)
        read, other = add_blob(fake, SIZE, "library/other:latest", seed=1)
        async with crawling(tmp_path, fake) as (mirror, client):
            answer = await client.get(blob_path(other, "library/other"))
            assert answer.body == read
            assert fetched(mirror, digest) <= 2 * PIECE


async def test_who_reads_gets_the_thread_of_what_crawls(tmp_path: Path) -> None:
    """Where every thread is taken by transfers that wait for their limit, one goes that a client need not wait."""
    said = {"upstream__connections": 1, "upstream__max_connections": 1}
    async with running_fake_registry() as fake:
        _, digest = add_blob(fake, SIZE)
        read, other = add_blob(fake, SIZE, "library/other:latest", seed=1)
        async with crawling(tmp_path, fake, **said) as (mirror, client):
            answer = await client.get(blob_path(other, "library/other"))
            assert answer.body == read
            assert not answer.broken
            assert fetched(mirror, digest) < SIZE


class Still:
    """A clock that stands still, and knows which threads have looked at it, and how often."""

    def __init__(self) -> None:
        self.looks: Counter[int] = Counter()

    def __call__(self) -> float:
        """Return seconds."""
        self.looks[threading.get_ident()] += 1
        return 0.0


async def test_it_is_one_limit_over_all_upstreams(tmp_path: Path) -> None:
    """On a clock that stands still there is one burst for both together, and the piece that goes into debt."""
    rate, reads, clock = 400_000, False, Still()
    ahead = Budget(rate, clock)
    async with running_fake_registry() as one, running_fake_registry() as other, asyncio.TaskGroup() as group:
        further = FurtherUpstream(name="lan", url=other.url, hosts=("hub.lan",))
        main = settings(tmp_path, one.url).upstream
        upstreams = Upstreams(main, (further,), None, tmp_path / "key", Events(), ahead)
        transfers = []
        for fake, name in ((one, MODEL), (other, ModelName.parse("hub.lan/library/m"))):
            _, digest = add_blob(fake, SIZE)
            address = await upstreams.of(name).locate("library/m", digest, SIZE)
            transfer = Transfer(ByteRange(0, SIZE), lambda _, __: None, urgent=lambda: reads)
            group.create_task(upstreams.of(name).carry(address, transfer))
            transfers.append(transfer)
        # Who looks at the clock without an end waits: both have had what there is.
        await eventually(lambda: done(sum(one.at for one in transfers) >= rate * BURST_S))
        looked = clock.looks.copy()
        await eventually(lambda: done(sum(clock.looks[one] > looked[one] + 1 for one in clock.looks.copy()) == 2))
        assert sum(one.at for one in transfers) <= rate * BURST_S + (ahead.piece or 0)
        reads = True
        await eventually(lambda: done(all(one.at == SIZE for one in transfers)))
    await upstreams.close()


async def done(what: bool) -> bool:
    """A condition that nothing has to be awaited for."""
    return what


@pytest.mark.parametrize("key", ["upstream__rate", "pulls__rate"])
async def test_rates_change_with_the_hour(key: str, tmp_path: Path) -> None:
    """At every edge and at no other time; upstreams that are opened later have what holds then."""
    clock, said = NightClock(), ["20MB/s", "5MB/s Sat 14:00-15:00", "none 22:00-06:00"]
    main = settings(tmp_path, "http://127.0.0.1:9", **({key: said} if key.startswith("upstream") else {})).upstream
    further = FurtherUpstream.model_validate({"name": "huggingface", "rate": "7MB/s, 3MB/s 14:30-23:00"})
    upstreams = Upstreams(main, (further,), None, tmp_path / "key", Events())
    pace = Pace(upstreams, parse_rates(said) if key.startswith("pulls") else None, clock, ZoneInfo("UTC"))

    def in_force() -> tuple[float | None, float | None]:
        return (pace.upstream, pace.ahead) if key.startswith("upstream") else (pace.ahead, pace.upstream)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(pace.run())
        seen = [in_force()]
        for minutes in (119, 1, 59, 1, 419, 1, 480):
            await _all_else()
            clock.move(minutes=minutes)
            await _all_else()
            seen.append(in_force())
            if minutes == 59:
                assert upstreams.of(ModelName.parse("hf.co/me/m:Q4")).budget.rate == 3_000_000
        task.cancel()
    assert seen == [(rate, None) for rate in (20e6, 20e6, 5e6, 5e6, 20e6, 20e6, None, 20e6)]
    assert upstreams.of(ModelName.parse("hf.co/me/m:Q4")).budget.rate == 7_000_000
    await upstreams.close()


async def _all_else() -> None:
    """Let every task go on until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_rate_that_stays_keeps_what_is_owed() -> None:
    """An edge at which nothing changes gives no new burst away."""
    budget = Budget(1000, lambda: 0.0)
    budget.spend(5000, urgent=lambda: True, stop=lambda: False)
    budget.set_rate(1000)
    looked = iter([False, True])
    budget.spend(1, urgent=lambda: True, stop=lambda: next(looked))

    assert list(looked) == []
    budget.set_rate(2000)
    assert budget.rate == 2000
    budget.spend(1, urgent=lambda: True, stop=lambda: False)


async def test_the_rates_in_force_are_shown(tmp_path: Path) -> None:
    """In bytes per second, null for none, as GET /mirror/v1/queue has them; and by mirror status."""
    said = {"pulls__rate": "5MB/s 00:00-24:00", "pulls__windows": []}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **said) as (mirror, client):
        view = json.loads((await client.get("/mirror/v1/queue")).body)
        shown = await command("status", "--server", mirror.url)
    assert view["rates"] == {"pulls": 5_000_000, "upstream": None}
    assert "rate       5.0 MB/s for what nobody reads meanwhile\n" in shown.out


async def test_rates_that_are_set_while_it_runs_have_their_edges_too(tmp_path: Path) -> None:
    """Without windows there was nothing to wait for."""
    clock, zone = NightClock(), ZoneInfo("UTC")
    said = settings(tmp_path, "http://127.0.0.1:9")
    upstreams = Upstreams(said.upstream, (), None, tmp_path / "key", Events())
    try:
        pace = Pace(upstreams, None, clock, zone)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(pace.run())
            await asyncio.sleep(0)
            rates = parse_rates(["5MB/s", "2MB/s 13:00-14:00"])
            pace.change(upstream=rates, ahead=rates)
            assert (pace.upstream, pace.ahead) == (5_000_000, 5_000_000)
            for hours, rate in ((1.5, 2_000_000), (1, 5_000_000)):
                await asyncio.sleep(0.01)
                clock.move(hours=hours)

                async def holds(rate: int = rate) -> bool:
                    return (pace.upstream, pace.ahead) == (rate, rate)

                await eventually(holds)
            running.cancel()
    finally:
        await upstreams.close()
