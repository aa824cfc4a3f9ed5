"""The queue of pulls and all that works on it, built on one screen."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncEngine

from mirror.access import Passes, Seal
from mirror.config import Settings
from mirror.events import Events
from mirror.fill import Admission, Puller
from mirror.ollama import Behind
from mirror.pulls import Deliveries, Destinations, DiskOf, Guards, Queue, WallClock, Wishes, Worker, local_zone
from mirror.store import Store
from mirror.values import ModelName, NamePattern
from mirror.values.window import Schedule, parse_window


@dataclass(frozen=True, slots=True)
class Pulling:
    """What brings models in one after the other, and on to the Ollamas."""

    queue: Queue
    worker: Worker
    guards: Guards
    wishes: Wishes
    deliveries: Deliveries
    passes: Passes


@asynccontextmanager
async def opened_pulling(
    settings: Settings,
    engine: AsyncEngine,
    events: Events,
    store: Store,
    puller: Puller,
    admission: Admission,
    behind: Behind,
) -> AsyncIterator[Pulling]:
    """Build it. Raises BadKey where the mirror's seal cannot be read, QueueUnusable."""
    async with AsyncExitStack() as stack:
        queue = Queue(engine, settings.pulls.max_queued, ended=lambda job: events.publish(job.end()))
        await queue.load()
        guards = _guards(settings, store)
        destinations = Destinations(settings.pulls, settings.proxy, behind, settings.upstream.host)
        stack.push_async_callback(destinations.close)
        seal = Seal.opened(store.layout.state, settings.security.ticket_ttl)
        passes = Passes(seal.instance())
        deliveries = Deliveries(store, passes, destinations, settings.pulls.delivery, settings.server.public_url)
        worker = _worker(queue, puller, store, guards, deliveries, settings)
        wishes = Wishes(queue, guards, admission, worker.now)
        yield Pulling(queue, worker, guards, wishes, deliveries, passes)


def zone_of(settings: Settings) -> ZoneInfo:
    """Return the time zone of windows that name none."""
    named = settings.pulls.timezone
    return ZoneInfo(named) if named is not None else local_zone(os.environ)


def windows_of(settings: Settings) -> Schedule:
    """Return when pulls are fetched."""
    return Schedule(tuple(map(parse_window, settings.pulls.windows)), zone_of(settings))


def _guards(settings: Settings, store: Store) -> Guards:
    watched = settings.pulls.disk_path
    return Guards(settings.pulls, store.room if watched is None else DiskOf(watched), zone_of(settings))


def _worker(
    queue: Queue, puller: Puller, store: Store, guards: Guards, deliveries: Deliveries, settings: Settings
) -> Worker:
    said, host = settings.pulls, settings.upstream.host
    keep = [NamePattern.parse(one, host=host) for one in said.keep]

    def kept_fresh() -> list[ModelName]:
        named = [name for pattern in keep if (name := pattern.name(host=host)) is not None]
        here = [one.name for one in store.complete if any(pattern.matches(one.name) for pattern in keep)]
        return list({name.folded: name for name in (*named, *here)}.values())

    return Worker(
        queue,
        puller.pull,
        windows_of(settings),
        WallClock(),
        most=settings.upstream.max_concurrent_downloads,
        tries=said.tries,
        retry_delay_s=said.retry_delay,
        kept_fresh=kept_fresh,
        room=guards.room,
        deliveries=deliveries,
    )
