"""The limit holds, and those who read now come first."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.budget import Bucket, Budget
from tests.fakes.registry import running_fake_registry
from tests.support import add_blob, blob_path, mirrored

BURST_S = 0.25


@given(st.floats(1e3, 1e9), st.lists(st.tuples(st.floats(0, 3), st.integers(1, 1 << 18)), max_size=60))
def test_never_more_than_the_rate_and_a_burst(rate: float, asks: list[tuple[float, int]]) -> None:
    """Whoever pays for the line by the byte has set it."""
    bucket, now, taken, last = Bucket(rate), 0.0, 0, 0
    for elapsed, size in asks:
        now += elapsed
        if bucket.take(size, now) == 0:
            taken, last = taken + size, size
            # A take may go into debt, which later ones wait for: only the last can be beyond the limit.
            assert taken - last <= rate * (now + BURST_S) * (1 + 1e-9)


@given(st.floats(1e3, 1e9), st.lists(st.integers(1, 1 << 18), min_size=1, max_size=60))
def test_who_waits_as_told_gets_the_whole_rate(rate: float, sizes: list[int]) -> None:
    """A limit is also what may be used."""
    bucket, now = Bucket(rate), 0.0
    for size in sizes:
        while (delay := bucket.take(size, now)) > 0:
            now += delay
    longest = (sum(sizes[:-1]) / rate) - BURST_S

    assert now <= max(0.0, longest) + 0.002 * len(sizes)


def test_without_a_rate_nobody_waits() -> None:
    """The default."""
    bucket, budget = Bucket(None), Budget(None)

    assert bucket.take(1 << 40, 0.0) == 0
    assert budget.unlimited
    assert budget.piece is None
    budget.spend(1 << 40, urgent=lambda: False, stop=lambda: False)


def test_a_clock_that_stands_still_gives_nothing_more() -> None:
    """And one that goes back takes nothing away."""
    bucket = Bucket(1000)

    assert bucket.take(1250, 10.0) == 0
    assert bucket.take(1, 10.0) == 1.0
    assert bucket.take(1, 5.0) == 1.0
    assert bucket.take(1, 6.5) == 0


def test_pieces_are_small_where_the_rate_is() -> None:
    """A large piece at a low rate would keep a connection silent for minutes."""
    assert Budget(100_000).piece == 5000
    assert Budget(1).piece == 4096


class Clock:
    """A clock that goes on when it is read."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Return seconds."""
        with self._lock:
            self._now += 0.05
            return self._now


def test_the_rest_gets_nothing_while_an_urgent_one_waits() -> None:
    """A client's pull must not crawl because models are fetched ahead."""
    budget = Budget(1000.0, Clock())
    budget.spend(450, urgent=lambda: True, stop=lambda: False)
    order: list[str] = []
    waiting, rest_asked = threading.Event(), threading.Event()

    def spend(name: str, *, urgent: bool, asked: Callable[[], object]) -> None:
        looks = 0

        def stop() -> bool:
            nonlocal looks
            looks += 1
            if looks == 2:
                asked()
            return False

        budget.spend(1, urgent=lambda: urgent, stop=stop)
        order.append(name)

    with ThreadPoolExecutor(3) as threads:
        threads.submit(spend, "urgent", urgent=True, asked=waiting.set)
        assert waiting.wait(10)
        threads.submit(spend, "rest", urgent=False, asked=rest_asked.set)
        assert rest_asked.wait(10)

    assert order == ["urgent", "rest"]


def test_one_who_is_stopped_owes_what_came() -> None:
    """The bytes went over the line, whoever wanted them."""
    budget = Budget(1000.0, lambda: 0.0)
    budget.spend(200, urgent=lambda: True, stop=lambda: True)
    budget.spend(40, urgent=lambda: True, stop=lambda: False)
    budget.spend(40, urgent=lambda: True, stop=lambda: False)
    looked = iter([False, True])
    budget.spend(1, urgent=lambda: True, stop=lambda: next(looked))

    assert list(looked) == []


async def test_a_changed_limit_holds_at_once() -> None:
    """Windows of the day change it under running transfers."""
    budget = Budget(1.0)
    await budget.spend_waiting(1000)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(budget.spend, 1, urgent=lambda: True, stop=lambda: False))
        group.create_task(budget.spend_waiting(1))
        budget.set_rate(None)


async def test_a_transfer_takes_as_long_as_the_limit_says(tmp_path: Path) -> None:
    """Through many connections, and without any of them being taken for dead while it waits."""
    rate, size = 4_000_000, 6_000_000
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, upstream__rate=rate) as (_, client):
        content, digest = add_blob(fake, size)
        await client.manifest()
        begun = time.monotonic()
        answer = await client.get(blob_path(digest))
        took_s = time.monotonic() - begun

        assert answer.body == content
        assert took_s >= size / rate - BURST_S - 0.2
        assert took_s < 3 * size / rate
        assert len([one for one in fake.asked("blob") if one.range != "bytes=0-0"]) <= 8


async def test_a_very_low_limit_does_not_look_like_a_stall(tmp_path: Path) -> None:
    """The stall time-out is 0.5 s here, and each connection gets a byte more rarely than that."""
    changes = {"upstream__rate": 30_000, "upstream__stall_timeout": 0.5}
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **changes) as (_, client):
        content, digest = add_blob(fake, 60_000)
        await client.manifest()
        answer = await client.get(blob_path(digest))

        assert answer.body == content
        assert [one.status for one in fake.asked("blob")] == [206, 206]
