"""A keeper on a store of this test, with a clock that the test sets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mirror.config import CacheSettings
from mirror.db import Ledger, open_database
from mirror.events import Event, Events
from mirror.keep import Keeper
from mirror.store import Pins, Problem, Store, verify
from mirror.values import DEFAULT_HOST, Manifest, ModelName, NamePattern
from tests.stored import keep


class Clock:
    """Begins two hours from now: the files of a test are written now, and every use is after every file."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(hours=2)

    def __call__(self) -> datetime:
        """The time."""
        return self.now


@dataclass
class Kept:
    """The parts, and what was heard."""

    store: Store
    ledger: Ledger
    keeper: Keeper
    pins: Pins
    events: Events
    heard: list[Event]
    clock: "Clock"

    async def model(self, name: str, *layers: bytes) -> Manifest:
        """Put a whole model into the store; a minute passes."""
        manifest = await keep(self.store, ModelName.parse(name), *layers)
        self.use(name)
        return manifest

    def use(self, name: str) -> None:
        """Somebody uses a model; a minute passes."""
        self.ledger.used(ModelName.parse(name))
        self.clock.now += timedelta(minutes=1)

    @property
    def names(self) -> set[str]:
        """The complete models there are."""
        return {one.name.short.removesuffix(":latest") for one in self.store.complete}

    def sound(self) -> bool:
        """Whether the tree keeps its promises."""
        return not [step for step in verify(self.store.layout) if isinstance(step, Problem)]


@asynccontextmanager
async def kept(folder: Path, **changes: Any) -> AsyncIterator[Kept]:
    """A keeper with these settings of the section ``cache``."""
    settings = CacheSettings(directory=folder / "store", state=folder / "state", **changes)
    events, heard = Events(), list[Event]()
    events.tap(heard.append)
    store = await Store.open(folder / "store", folder / "state", events, holder="a test")
    engine = await open_database(None, folder / "state" / "mirror.db")
    clock = Clock()
    try:
        ledger = Ledger(engine, clock)
        events.tap(ledger.hear, *ledger.kinds)
        pins = Pins(store.layout, [NamePattern.parse(one) for one in settings.pinned], host=DEFAULT_HOST)
        keeper = Keeper(store, ledger, pins, settings, events, clock)
        yield Kept(store, ledger, keeper, pins, events, heard, clock)
    finally:
        store.close()
        await engine.dispose()
