"""The board: what is told at once, what waits to be read, and what is dropped."""

import asyncio

import pytest

from mirror.events import BytesFetched, DigestMismatched, Event, Events
from mirror.values import Digest

DIGEST = Digest.of(b"")


def news(count: int) -> list[Event]:
    """So many different pieces of news."""
    return [BytesFetched(DIGEST, number) for number in range(count)]


def test_a_tap_hears_everything_at_once() -> None:
    """Counters must not lose what a reader of news may."""
    events, heard = Events(), list[Event]()
    events.tap(heard.append)
    for event in news(5000):
        events.publish(event)
        assert heard[-1] is event
    assert heard == news(5000)


def test_a_tap_may_want_some_kinds_only_and_hears_all_of_those() -> None:
    """Every request publishes; who counts models need not be called for each chunk of bytes."""
    events, heard = Events(), list[Event]()
    events.tap(heard.append, BytesFetched)
    for event in (*news(3), DigestMismatched(DIGEST)):
        events.publish(event)
    assert heard == news(3)


async def test_a_subscription_yields_the_news_since_it_was_taken_in_order() -> None:
    """A page that is opened later shows what happens from then on."""
    events = Events()
    events.publish(BytesFetched(DIGEST, 99))
    with events.subscribe() as subscription:
        for event in news(3):
            events.publish(event)
        assert [await anext(subscription) for _ in range(3)] == news(3)
        assert subscription.dropped == 0


async def test_a_full_subscription_drops_the_oldest_and_counts_them() -> None:
    """A slow reader must cost neither memory nor the time of who publishes, and must be told what it missed."""
    events = Events()
    with events.subscribe(limit=3) as subscription:
        for event in news(10):
            events.publish(event)
        assert subscription.dropped == 7
        assert [await anext(subscription) for _ in range(3)] == news(10)[7:]


async def test_a_reader_who_keeps_up_misses_nothing() -> None:
    """What was read makes room again."""
    events = Events()
    with events.subscribe(limit=1) as subscription:
        for event in news(20):
            events.publish(event)
            assert await anext(subscription) is event
        assert subscription.dropped == 0


async def test_a_waiting_reader_is_woken_by_the_next_news() -> None:
    """Nobody has to ask again and again."""
    events = Events()
    with events.subscribe() as subscription:
        asyncio.get_running_loop().call_soon(events.publish, news(1)[0])
        async with asyncio.timeout(5):
            assert await anext(subscription) == news(1)[0]


async def test_every_subscription_has_its_own_place() -> None:
    """One slow reader takes nothing from the others."""
    events = Events()
    with events.subscribe(limit=1) as slow, events.subscribe() as quick:
        for event in news(4):
            events.publish(event)
        assert [await anext(quick) for _ in range(4)] == news(4)
        assert (slow.dropped, quick.dropped) == (3, 0)


async def test_a_subscription_may_want_some_kinds_only() -> None:
    """What is rare is not pushed out by what is not."""
    events = Events()
    with events.subscribe(1, DigestMismatched) as subscription:
        for event in (DigestMismatched(DIGEST), *news(3)):
            events.publish(event)
        assert await anext(subscription) == DigestMismatched(DIGEST)
        assert subscription.dropped == 0


async def test_an_ended_subscription_gets_nothing_more() -> None:
    """A reader that has gone must not fill up for ever."""
    events = Events()
    with pytest.raises(RuntimeError, match="reader"), events.subscribe(limit=1) as subscription:
        raise RuntimeError("the reader failed")
    for event in news(5):
        events.publish(event)
    assert subscription.dropped == 0
