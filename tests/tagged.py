"""A tag that moves: models one after the other under one name, and what is made of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mirror.app import Parts, opened_parts
from mirror.demo.model import MODEL_TYPE
from mirror.fill import PullProgress
from mirror.values import Digest, Manifest
from tests.fakes.registry import FakeRegistry
from tests.stored import keep
from tests.support import MANIFEST, MODEL, Machine, noise, settings

SIZE = 100_000
NOBODY = "http://127.0.0.1:9"


def quiet(_: PullProgress) -> None:
    """Nobody looks at the progress."""


def publish_model(fake: FakeRegistry, seed: int) -> Manifest:
    """The upstream moves the tag."""
    return fake.add_model("library/m:latest", {MODEL_TYPE: noise(SIZE, seed)})


async def pulled(parts: Parts, fake: FakeRegistry, *seeds: int) -> list[Manifest]:
    """Have the tag mean one model after the other, each of which is pulled."""
    found = []
    for seed in seeds:
        found.append(publish_model(fake, seed))
        await parts.puller.pull(MODEL, quiet)
    return found


def meant(parts: Parts) -> Digest | None:
    """What the tag means in the store, if all of it is here."""
    stored = parts.store.complete.find(MODEL)
    return stored.digest if stored and parts.store.staged.find(MODEL) is None else None


def known(parts: Parts) -> list[Digest]:
    """What it meant before."""
    return [one.digest for one in parts.rollback.known(MODEL)]


async def back(parts: Parts, to: Manifest | None = None) -> PullProgress:
    """Put the tag back."""
    return await parts.rollback.back(MODEL, parts.rollback.find(MODEL, str(to.digest) if to else None))


async def served(client: Machine) -> Digest:
    """What a client is told that the tag means."""
    return Digest.of((await client.get(MANIFEST)).body)


@asynccontextmanager
async def parts_of(folder: Path, **changes: Any) -> AsyncIterator[Parts]:
    """The parts of a mirror that asks nobody."""
    async with opened_parts(settings(folder, NOBODY, offline=True, **changes), holder="a test") as parts:
        yield parts


async def two(folder: Path) -> tuple[Manifest, Manifest]:
    """A store in which the tag means the second of two models; the blobs of the first are still here."""
    async with parts_of(folder) as parts:
        return await keep(parts.store, MODEL, b"old" * 999), await keep(parts.store, MODEL, b"new" * 999)
