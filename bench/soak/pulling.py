"""Clients that pull as Ollama does, others that read in one stream, some slowly, and some that leave."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from hashlib import sha256

import aiohttp

from bench.soak.causes import Cause, Work
from bench.soak.driver import Driver, Left, Wrong, good
from bench.soak.models import LIAR
from mirror.demo.model import blob_path
from mirror.values import ByteRange, Descriptor, Manifest
from mirror.values.http_range import content_range, range_header

_PARTS = 16
_TRIES = 5
_PAUSE_S = 0.3
_SLOW_BYTES = 64 << 10
_AT_ONCE = "PASS"
"""What X-Mirror-Cache says of bytes that are not kept: of a range of those nobody can prove anything."""


@dataclass
class Place:
    """Up to where a range has come."""

    at: int


@dataclass
class Blob:
    """One blob on its way to one client."""

    name: str
    asked: Descriptor
    content: bytearray
    begun: float = 0.0
    unproven: bool = False
    asked_again: bool = False
    missing: list[ByteRange] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, asked: Descriptor, parts: int) -> "Blob":
        """Return one of which nothing is here yet."""
        step = max(1, -(-asked.size // parts))
        spans = [ByteRange(at, min(at + step, asked.size)) for at in range(0, asked.size, step)]
        return cls(name, asked, bytearray(asked.size), time.monotonic(), missing=spans)

    @property
    def path(self) -> str:
        """Where it is asked for."""
        return f"/v2/{self.name}/blobs/{self.asked.digest}"


class Pulling:
    """Pulls models of the catalog, each time in another way."""

    def __init__(self, driver: Driver) -> None:
        self._at = driver

    async def pull(self, dice: random.Random) -> None:
        """Pull a model: its manifest, the size of each blob, and the bytes."""
        name = self._at.catalog.pick(dice)
        async with self._at.session() as session:
            manifest = await self.manifest(session, name)
            for blob in manifest.blobs if manifest else ():
                if self._at.gate.closing:
                    return
                if dice.random() < 0.5:
                    await self._head(session, name, blob)
                await self._blob(session, name, blob, dice)

    async def look(self, dice: random.Random) -> None:
        """Ask for a manifest alone, as one that only looks whether there is something new."""
        async with self._at.session() as session:
            if dice.random() < 0.2:
                await self._unknown(session)
            else:
                await self.manifest(session, self._at.catalog.pick(dice))

    async def manifest(self, session: aiohttp.ClientSession, name: str) -> Manifest | None:
        """Fetch a manifest; it has to be one that the name may mean."""
        async with self._at.asking(Work.MANIFEST, name), session.get(self._url(name, "latest")) as answer:
            await good(answer)
            raw = await answer.read()
            if raw not in self._at.catalog.manifests[name]:
                self._at.record.wrong += 1
                raise Wrong("a manifest with wrong bytes", name)
            return Manifest.parse(raw)
        return None

    def _url(self, name: str, reference: str) -> str:
        return f"{self._at.url}/v2/{name}/manifests/{reference}"

    async def _unknown(self, session: aiohttp.ClientSession) -> None:
        async with (
            self._at.asking(Work.MANIFEST, "unknown"),
            session.get(self._url("library/nobody-has-this", "x")) as it,
        ):
            await good(it, 404)

    async def _head(self, session: aiohttp.ClientSession, name: str, blob: Descriptor) -> None:
        url = f"{self._at.url}/v2/{name}/blobs/{blob.digest}"
        async with self._at.asking(Work.BLOB, f"HEAD {name}", lies=name == LIAR), session.head(url) as answer:
            await good(answer)
            if name != LIAR and answer.headers.get("Content-Length") != str(blob.size):
                raise Wrong("wrong size", str(answer.headers.get("Content-Length")))

    async def _blob(self, session: aiohttp.ClientSession, name: str, asked: Descriptor, dice: random.Random) -> None:
        way = dice.choices(("ranges", "stream", "slow", "leaves"), (5, 3, 1, 2))[0]
        if way in ("stream", "slow"):
            await self._stream(session, name, asked, slow=way == "slow")
            return
        blob = Blob.of(name, asked, _PARTS)
        if way == "leaves" and asked.size > _PARTS:
            await self._some(session, blob, leaves_after=dice.randrange(asked.size))
            await asyncio.sleep(dice.uniform(0, 1))
        await self._some(session, blob)
        if not blob.missing:
            self._check(blob.asked, bytes(blob.content), unproven=blob.unproven or self._pieced(blob))

    def _pieced(self, blob: Blob) -> bool:
        """Say whether ranges may be from before and after a proof that failed.

        A range that is over before the end of its blob is here cannot be taken back: the client whose other ranges are
        cut off then, and who asks for those anew, has to look at the whole (ARCHITECTURE.md, A fill).
        """
        return blob.asked_again and Cause.UPSTREAM in self._at.timeline.causes(blob.begun, time.monotonic())

    async def _some(self, session: aiohttp.ClientSession, blob: Blob, leaves_after: int | None = None) -> None:
        """Fetch what is missing, all at once; ``leaves_after`` so many bytes the client is gone."""
        spans, blob.missing = blob.missing, []
        async with asyncio.TaskGroup() as group:
            for span in spans:
                group.create_task(self._part(session, blob, span, leaves_after))

    async def _part(
        self, session: aiohttp.ClientSession, blob: Blob, span: ByteRange, leaves_after: int | None
    ) -> None:
        """Fetch one range, and go on where it broke off, as often as Ollama does."""
        place = Place(span.start)
        tries = _TRIES if leaves_after is None else 1
        for number in range(tries):
            left = ByteRange(place.at, span.stop)
            async with self._at.asking(Work.BLOB, f"{blob.name} {left}", lies=blob.name == LIAR):
                await self._ranged(session, blob, left, place, leaves_after)
            if place.at >= span.stop:
                return
            blob.asked_again = True
            if self._at.gate.closing:
                break
            if number + 1 < tries:
                await asyncio.sleep(_PAUSE_S * 2**number)
        blob.missing.append(ByteRange(place.at, span.stop))

    async def _ranged(
        self, session: aiohttp.ClientSession, blob: Blob, span: ByteRange, place: Place, leaves_after: int | None
    ) -> None:
        """Read a range into the blob; ``place`` is up to where it came, however it ends."""
        async with session.get(f"{self._at.url}{blob.path}", headers={"Range": range_header(span)}) as answer:
            await good(answer, 206)
            if blob.name != LIAR and answer.headers.get("Content-Range") != content_range(span, blob.asked.size):
                raise Wrong("wrong range", str(answer.headers.get("Content-Range")))
            blob.unproven |= answer.headers.get("X-Mirror-Cache") == _AT_ONCE
            async for chunk in answer.content.iter_any():
                blob.content[place.at : place.at + len(chunk)] = chunk
                place.at += len(chunk)
                self._at.record.bytes_read += len(chunk)
                if leaves_after is not None and place.at - span.start > leaves_after // _PARTS:
                    raise Left

    async def _stream(self, session: aiohttp.ClientSession, name: str, asked: Descriptor, *, slow: bool) -> None:
        content = bytearray()
        url, complete = f"{self._at.url}/v2/{name}/blobs/{asked.digest}", False
        async with self._at.asking(Work.BLOB, f"{name} whole", lies=name == LIAR), session.get(url) as answer:
            await good(answer)
            if slow:
                while chunk := await answer.content.read(_SLOW_BYTES):
                    content += chunk
                    await asyncio.sleep(_SLOW_BYTES / max(asked.size / 3, 1_000_000))
            else:
                async for chunk in answer.content.iter_any():
                    content += chunk
            complete = True
        self._at.record.bytes_read += len(content)
        if complete:
            self._check(asked, bytes(content), unproven=False)

    def _check(self, asked: Descriptor, content: bytes, *, unproven: bool) -> None:
        """Compare a complete blob with its name.

        A blob that the soak damaged at rest may be read as it is until the scrub has found it (docs/keeping.md), and a
        range that passes through unkept is proven by nobody but the client (ARCHITECTURE.md, promise 5); ``unproven``
        says that there is such a range, or one from before a proof that failed.
        """
        got = sha256(content).hexdigest()
        self._at.record.blobs_checked += 1
        if got == asked.digest.hex:
            return
        if got in self._at.damaged.get(asked.digest.hex, ()):
            self._at.record.damaged_served += 1
        elif unproven:
            self._at.record.unproven_refused += 1
        else:
            self._at.record.wrong += 1
            self._at.record.tell(f"wrong bytes: {asked.digest} {self._differing(asked, content)}")

    def _differing(self, asked: Descriptor, content: bytes) -> str:
        """Say where a blob is wrong, for whoever looks for the cause."""
        right = blob_path(self._at.catalog.folder, asked.digest).read_bytes()
        places = [at for at, (one, other) in enumerate(zip(right, content, strict=False)) if one != other]
        return f"{len(content)} bytes of {len(right)}, {len(places)} wrong: {places[:3]} to {places[-3:]}"
