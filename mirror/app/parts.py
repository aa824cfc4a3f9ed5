"""The parts below the faces, built on one screen; a server and a command on a free store use the same."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from math import ceil

import structlog

from mirror import __version__
from mirror.access import Passes, Policy
from mirror.app.batching import Batching, opened_batching
from mirror.app.dispatching import opened_dispatching
from mirror.app.fetching import fetching
from mirror.app.hub import opened_nodes
from mirror.app.prompting import Prompting, opened_prompting
from mirror.app.pulling import opened_pulling, zone_of
from mirror.config import Settings
from mirror.db import Ledger, Tallies, open_database
from mirror.dispatch import Pool, Turns
from mirror.errors import QueueUnusable
from mirror.events import Events
from mirror.fill import Admission, Fills, Puller, Repairer, Rollback, Tags, Unknown
from mirror.hub import Nodes
from mirror.keep import Keeper, Scrub
from mirror.ollama import Behind
from mirror.pulls import Deliveries, Guards, Pace, Queue, WallClock, Webhook, Wishes, Worker
from mirror.store import Pins, Store
from mirror.tracing import trace
from mirror.upstream import Upstreams
from mirror.values import NamePattern
from mirror.web import Watch

_PROVING_THREADS = 4
_FLUSH_S = 5.0
_LOCK_S = 1.0
_LOOK_S = 10.0
_FORGET_S = 3600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the faces stand on."""

    settings: Settings
    events: Events
    store: Store
    ledger: Ledger
    tallies: Tallies
    keeper: Keeper
    scrub: Scrub
    upstreams: Upstreams
    fills: Fills
    tags: Tags
    admission: Admission
    puller: Puller
    repairer: Repairer
    rollback: Rollback
    behind: Behind
    queue: Queue
    worker: Worker
    guards: Guards
    wishes: Wishes
    deliveries: Deliveries
    passes: Passes
    pool: Pool
    turns: Turns
    nodes: Nodes
    prompting: Prompting
    batching: Batching
    pace: Pace
    watch: Watch


@asynccontextmanager
async def opened_parts(settings: Settings, *, holder: str, create: bool = True) -> AsyncIterator[Parts]:
    """Take the store and build everything on it; on the way out park the fills and close in order.

    Raises:
        StoreBusy, StoreUnusable, BrokenStore, SettingsError, BadKey.
    """
    events = Events()
    state = settings.cache.state_directory.absolute()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(trace(__version__, enabled=settings.features.enable_tracing))
        store = await _store(settings, events, holder, create=create)
        stack.callback(store.close)
        engine = await open_database(settings.database.url, state / "mirror.db")
        stack.push_async_callback(engine.dispose)
        ledger = Ledger(engine)
        await ledger.load()
        events.tap(ledger.hear, *ledger.kinds)
        tallies = Tallies(engine)
        events.tap(tallies.hear, *tallies.kinds)
        for replaced in store.replaced:
            events.publish(replaced)
        keeper = Keeper(store, ledger, _pins(store, settings), settings.cache, events)
        unknown = await asyncio.to_thread(Unknown, state / "unknown")
        stack.callback(unknown.close)
        key_file = settings.upstream.key_file or state / "id_ed25519"
        upstreams = Upstreams(settings.upstream, settings.upstreams, settings.hf_token, key_file, events)
        stack.push_async_callback(upstreams.close)
        pace = Pace(upstreams, settings.pulls.rate, WallClock(), zone_of(settings))
        behind = Behind(settings.proxy)
        stack.push_async_callback(behind.close)
        threads = ThreadPoolExecutor(_PROVING_THREADS, thread_name_prefix="prover")
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        closing = asyncio.Event()
        group.create_task(_flush_now_and_then(ledger, tallies, closing), name="ledger")
        stack.callback(closing.set)
        pacing = group.create_task(pace.run(), name="rates")
        stack.callback(pacing.cancel)
        fills = Fills(store, keeper, upstreams, settings, events, group, threads)
        stack.callback(fills.park)
        tags = Tags(store, upstreams, settings, ledger, unknown)
        admission = Admission(_policy(settings, upstreams), store, fills, upstreams)
        puller = Puller(store, keeper, tags, fills, admission)
        made = opened_pulling(settings, engine, events, store, puller, admission, behind)
        pulling = await stack.enter_async_context(made)
        dispatching = await stack.enter_async_context(opened_dispatching(settings.dispatch, settings.proxy, behind))
        nodes = await stack.enter_async_context(opened_nodes(settings, engine, dispatching.pool, behind.pseudonym))
        fetch = fetching(settings, tags, pulling.deliveries, admission, dispatching.pool)
        prompting = await opened_prompting(settings, engine, events, dispatching.turns, dispatching.pool, fetch)
        batching = await stack.enter_async_context(opened_batching(settings, engine, state, prompting, admission))
        yield Parts(
            settings=settings,
            events=events,
            store=store,
            ledger=ledger,
            tallies=tallies,
            keeper=keeper,
            scrub=Scrub(store, settings.cache, events),
            upstreams=upstreams,
            fills=fills,
            tags=tags,
            admission=admission,
            puller=puller,
            repairer=Repairer(store, puller, events, settings.cache.cleanup_interval),
            rollback=Rollback(store, ledger, tags, puller, offline=settings.offline),
            behind=behind,
            queue=pulling.queue,
            worker=pulling.worker,
            guards=pulling.guards,
            wishes=pulling.wishes,
            deliveries=pulling.deliveries,
            passes=pulling.passes,
            pool=dispatching.pool,
            turns=dispatching.turns,
            nodes=nodes,
            prompting=prompting,
            batching=batching,
            pace=pace,
            watch=Watch(
                events, store, fills, pulling.queue, dispatching.turns, dispatching.pool, prompting.prompts.counts
            ),
        )


async def _store(settings: Settings, events: Events, holder: str, *, create: bool) -> Store:
    cache = settings.cache
    return await Store.open(
        cache.directory.absolute(),
        cache.state_directory.absolute(),
        events,
        holder=holder,
        create=create,
        shared=cache.shared_with_ollama,
        also_from=cache.also_from,
    )


@asynccontextmanager
async def kept_in_order(parts: Parts) -> AsyncIterator[None]:
    """While the context lasts, keep the store within its limits, scrub it, and repair what is damaged.

    Raises StoreBusy where another process has got hold of the store meanwhile.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(parts.keeper.run(), name="keeper"),
            group.create_task(parts.scrub.run(), name="scrub"),
            group.create_task(_keep_lock(parts.store), name="lock"),
        ]
        if parts.settings.cache.shared_with_ollama:
            tasks.append(group.create_task(_look_at_the_tree(parts.store), name="tree"))
        if parts.store.extra:
            tasks.append(group.create_task(parts.store.extra.run(), name="extra"))
        if (webhook := _webhook(parts.settings, parts.events)) is not None:
            tasks.append(group.create_task(webhook.run(), name="webhook"))
        if not parts.settings.offline:
            tasks.append(group.create_task(parts.repairer.run(), name="repairer"))
            tasks.append(group.create_task(parts.worker.run(), name="pulls"))
        tasks.append(group.create_task(_forget_old(parts), name="history"))
        tasks += [
            group.create_task(parts.pool.watch(one), name=f"look at {one.id}") for one in parts.pool if not one.node
        ]
        if parts.settings.prompts.enabled:
            tasks.append(group.create_task(parts.prompting.run(), name="prompts"))
            tasks.append(group.create_task(parts.batching.worker.run(), name="batches"))
        tasks.append(group.create_task(parts.nodes.run(), name="nodes"))
        tasks.append(group.create_task(parts.pool.knock(), name="knock"))
        tasks.append(group.create_task(parts.turns.run(), name="turns"))
        tasks.append(group.create_task(parts.watch.run(), name="watch"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def _pins(store: Store, settings: Settings) -> Pins:
    host = settings.upstream.host
    return Pins(store.layout, [NamePattern.parse(one, host=host) for one in settings.cache.pinned], host=host)


def _webhook(settings: Settings, events: Events) -> Webhook | None:
    url, secret = settings.pulls.webhook, settings.pulls.webhook_secret
    return Webhook(url, secret.get_secret_value() if secret else None, events) if url else None


def _policy(settings: Settings, upstreams: Upstreams) -> Policy:
    return Policy.of(settings.security, settings.upstream.host, upstreams.routes.filed_pattern)


async def _forget_old(parts: Parts) -> None:
    while True:
        try:
            await parts.queue.forget_before(parts.worker.now() - timedelta(seconds=parts.settings.pulls.history))
        except QueueUnusable as error:
            log.warning("old jobs are not forgotten", problem=str(error))
        await parts.tallies.forget(ceil(parts.settings.dispatch.keep_usage / 86_400))
        await asyncio.sleep(_FORGET_S)


async def _look_at_the_tree(store: Store) -> None:
    while True:
        await store.refresh()
        await asyncio.sleep(_LOOK_S)


async def _keep_lock(store: Store) -> None:
    while True:
        await asyncio.sleep(_LOCK_S)
        store.lock.keep()


async def _flush_now_and_then(ledger: Ledger, tallies: Tallies, closing: asyncio.Event) -> None:
    while not closing.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await closing.wait()
        await ledger.flush()
        await tallies.flush()
