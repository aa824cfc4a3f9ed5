"""A program that changes a store without pause, to be killed: ``python -m tests.crash_writer FOLDER SEED``.

It fills blobs out of order from several threads, resumes what an earlier one left, publishes, puts manifests and
removes models. Its end is bounded, should nobody kill it.
"""

import asyncio
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from mirror.errors import DigestMismatch
from mirror.events import Events
from mirror.store import Partial, Store
from mirror.values import ByteRange, Digest, Manifest, ModelName, RangeSet
from tests.stored import manifest_of

ROUNDS = 5000
BLOBS = 24
PIECE = 16 << 10


@cache
def blob(number: int) -> bytes:
    """The content of one of the blobs there are; every third is small, one is empty."""
    source = random.Random(number)
    return source.randbytes(
        source.randrange(200) if number % 3 == 0 else source.randrange(20_000, 400_000) if number else 0
    )


def contents() -> dict[Digest, bytes]:
    """Every blob that can come up, configs not."""
    return {Digest.of(blob(number)): blob(number) for number in range(BLOBS)}


def model(dice: random.Random) -> tuple[ModelName, Manifest, list[bytes]]:
    """One of a few names, with blobs that other models share."""
    layers = [blob(number) for number in dice.sample(range(BLOBS), 3)]
    return ModelName.parse(f"m{dice.randrange(5)}"), manifest_of(*layers[:-1], config=layers[-1]), layers


async def fill(store: Store, content: bytes, dice: random.Random, threads: ThreadPoolExecutor) -> None:
    """Bring one blob in as a fill does, sometimes not to its end, sometimes with a wrong byte."""
    digest = Digest.of(content)
    if store.blobs.size(digest) is not None:
        return
    partial = Partial.open(store.layout, digest, len(content))
    have = partial.resumed.copy()
    pieces = [
        ByteRange(at, min(at + PIECE, gap.stop))
        for gap in have.gaps(ByteRange(0, len(content)))
        for at in range(gap.start, gap.stop, PIECE)
    ]
    dice.shuffle(pieces)
    try:
        while pieces:
            batch = [pieces.pop() for _ in range(min(4, len(pieces)))]
            list(threads.map(lambda span: partial.write(span.start, content[span.start : span.stop]), batch))
            for span in batch:
                have.add(span)
            partial.record(have)
            if dice.random() < 0.02:
                return
        if content and dice.random() < 0.1:
            await spoil(partial, content)
            return
        partial.advance(len(content))
        partial.publish()
    finally:
        partial.close()
    await store.arrived(digest)


async def spoil(partial: Partial, content: bytes) -> None:
    """An upstream sent a wrong byte: found at the gate, then thrown away."""
    partial.record(RangeSet())
    partial.write(len(content) // 2, bytes([content[len(content) // 2] ^ 1]))
    partial.advance(len(content))
    with suppress(DigestMismatch):
        partial.publish()
        raise AssertionError("wrong bytes were published")
    partial.drop()


async def main(folder: Path, seed: int) -> None:
    """Change the store until the end."""
    dice = random.Random(seed)
    store = await Store.open(folder / "store", folder / "state", Events(), holder="crash writer")
    with ThreadPoolExecutor(4) as threads:
        for _ in range(ROUNDS):
            name, manifest, layers = model(dice)
            await store.put_manifest(name, manifest)
            for content in layers:
                await fill(store, content, dice, threads)
            if dice.random() < 0.3:
                await store.put_small_blob(blob(dice.randrange(0, BLOBS, 3)))
            if dice.random() < 0.4:
                await store.remove(ModelName.parse(f"m{dice.randrange(5)}"))
    store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
