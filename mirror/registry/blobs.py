"""``/v2/<namespace>/<model>/blobs/<digest>``: from the store, from a running fill, or passed through."""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass

from aiohttp import web
from yarl import URL

from mirror.access import Passes, user_of
from mirror.errors import DigestMismatch, MirrorError, NotFoundUpstream, Offline, StoreFull
from mirror.events import BlobServed, Events, Served
from mirror.fill import Admission, FillReader, Fills
from mirror.registry.locations import Locations
from mirror.registry.names import asked_name
from mirror.registry.passage import Passage
from mirror.registry.replies import VERSION, no_such_range
from mirror.registry.senders import Senders
from mirror.registry.sending import SENT, Sender, cut
from mirror.store import OpenBlob, Store
from mirror.tracing import span
from mirror.upstream import Upstreams
from mirror.values import ByteRange, Digest, ModelName
from mirror.values.http_range import RangeNotSatisfiable, content_range, parse_range

_FIRST_BYTE_S = 3.0
"""How long an answer waits for its first byte, so that it can still become an error with a status.

Ollama wants the head of its first, unranged GET within seconds (docs/protocol.md §3).
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a blob, once its size is known: which bytes, and whether the client named a range."""

    name: ModelName
    digest: Digest
    size: int
    span: ByteRange
    ranged: bool

    @classmethod
    def of(cls, request: web.Request, name: ModelName, digest: Digest, size: int) -> "Asked":
        """Read the request's Range and If-Range, which mean nothing but to GET (RFC 9110 §14.2).

        Raises:
            InvalidRange: the range is none.
            HTTPException: there is not a byte of it; the answer says how many there are.
        """
        header = request.headers.get("Range") if request.method == "GET" else None
        if header is not None and request.headers.get("If-Range", f'"{digest}"') == f'"{digest}"':
            try:
                span = parse_range(header, size)
            except RangeNotSatisfiable as error:
                raise no_such_range(error, size) from error
            if span is not None:
                return cls(name, digest, size, span, ranged=True)
        return cls(name, digest, size, ByteRange(0, size), ranged=False)


class Blobs:
    """Answers for blobs. A client that is told a wrong byte would keep it for ever: connections are cut instead."""

    def __init__(
        self,
        store: Store,
        fills: Fills,
        upstreams: Upstreams,
        events: Events,
        admission: Admission,
        locations: Locations,
        passes: Passes,
        senders: Senders,
        *,
        offline: bool,
    ) -> None:
        self._store = store
        self._fills = fills
        self._upstreams = upstreams
        self._events = events
        self._admission = admission
        self._locations = locations
        self._passes = passes
        self.senders = senders
        self._offline = offline

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD of one blob."""
        digest = Digest.parse(request.match_info["digest"])
        name = await self._admitted(request, digest)
        if _has_it(request, digest):
            return web.Response(status=304, headers={**VERSION, "ETag": f'"{digest}"'})
        if request.method == "HEAD":
            served = Served.HIT if self._store.servable(digest) is not None else Served.MISS
            size = await self._size(name, digest)
            return _head(Asked.of(request, name, digest, size), served)
        if "Range" not in request.headers and (there := self._elsewhere(request, name, digest)) is not None:
            return _pointing_to(there, digest)
        blob = self._store.open_blob(digest)
        if blob is not None:
            with blob, span("store", digest=str(digest)):
                asked = Asked.of(request, name, digest, blob.size)
                return await _Answer(self, request, asked, Served.HIT).from_file(blob)
        with span("fill", digest=str(digest)):
            return await self._miss(request, name, digest)

    async def _admitted(self, request: web.Request, digest: Digest) -> ModelName:
        """Return the model as part of which a blob is asked for. Raises NotAllowed, NotFoundUpstream."""
        handed = self._passes.of(request.match_info["namespace"])
        if handed is not None:
            if digest not in handed.digests:
                raise NotFoundUpstream(f"{digest.short} is no part of what is handed over")
            return handed.name
        name = asked_name(request, self._upstreams.routes)
        await self._admission.blob(name, digest, user_of(request))
        return name

    async def _miss(self, request: web.Request, name: ModelName, digest: Digest) -> web.StreamResponse:
        if self._offline:
            raise Offline(f"{digest} is not in the store, and the mirror is offline")
        joined = self._fills.running(digest) is not None
        try:
            # A range that is refused starts nothing.
            size = self._store.size_of(digest, name)
            fill = await self._fills.open(name, digest, size, lambda size: Asked.of(request, name, digest, size))
        except StoreFull:
            asked = Asked.of(request, name, digest, await self._size(name, digest))
            return await _Answer(self, request, asked, Served.PASS).passed_through()
        if fill is None:
            return await self.get(request)
        with fill.reader() as reader:
            try:
                asked = Asked.of(request, name, digest, fill.size)
                answer = _Answer(self, request, asked, Served.FILL if joined else Served.MISS)
                return await answer.from_fill(reader)
            except DigestMismatch:
                if self._fills.running(digest) in (None, fill):
                    raise
            finally:
                reader.close()
                self._fills.left(fill)
        return await self._miss(request, name, digest)  # nothing was sent yet, and another fill has begun

    def _elsewhere(self, request: web.Request, name: ModelName, digest: Digest) -> str | None:
        """Return where the blob is better read; None where that place would ask another upstream for it."""
        there = self._locations.elsewhere(request, digest)
        if there is None or self._store.servable(digest) is not None:
            return there
        where = URL(there, encoded=True)
        means = self._upstreams.routes.host(where.host or "", where.port or 0, name.namespace)
        return there if means == name.host else None

    async def _size(self, name: ModelName, digest: Digest) -> int:
        fill = self._fills.running(digest)
        size = fill.size if fill else self._store.size_of(digest, name)
        if size is not None:
            return size
        if self._offline:
            raise Offline(f"{digest} is not in the store, and the mirror is offline")
        return (await self._fills.locate(name, digest)).size

    def pass_through(self, asked: Asked, at: int) -> Passage:
        """Return what reads ``asked`` from ``at`` on, straight from upstream."""
        return Passage(
            self._upstreams.of(asked.name), asked.name, asked.digest, ByteRange(at, asked.span.stop), asked.size
        )

    def location(self, request: web.Request, digest: Digest) -> str:
        """Return where a client that asked for all of a blob asks for its ranges."""
        return self._locations.here(request, digest)

    def served(self, asked: Asked, result: Served, sent: int) -> None:
        """Tell the news that bytes went out."""
        self._events.publish(BlobServed(asked.name, asked.digest, result, sent))


class _Answer:
    """One blob answer on its way out; counts what was sent, however it ends."""

    def __init__(self, blobs: Blobs, request: web.Request, asked: Asked, served: Served) -> None:
        self._blobs = blobs
        self._request = request
        self._asked = asked
        self._response = _head(asked, served)
        if not asked.ranged:
            # Ollama takes the address for its range requests from here (server/download.go): without it, no pull.
            self._response.headers["Location"] = blobs.location(request, asked.digest)
        self._served = served
        self._at = self._counted = asked.span.start

    async def from_file(self, blob: OpenBlob) -> web.StreamResponse:
        """Send from a proven blob, while it counts as one."""

        def moved(count: int) -> None:
            self._moved(count)
            if not blob.sound:
                raise ConnectionAbortedError(f"{blob.digest.short} is damaged")

        try:
            await self._response.prepare(self._request)
            with Sender(self._request, self._blobs.senders, moved) as sender:
                await sender.send(blob.fd, self._asked.span)
            await self._response.write_eof()
        except ConnectionError:
            cut(self._request)  # the client has left
        finally:
            self._count()
        return self._response

    async def from_fill(self, reader: FillReader) -> web.StreamResponse:
        """Send what is there, as it comes. Errors before the first byte are raised, later ones cut the client off."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_BYTE_S):
                    await reader.readable(self._at)
        except StoreFull:
            return await self.passed_through()
        try:
            await self._response.prepare(self._request)
            with Sender(self._request, self._blobs.senders, self._moved) as sender:
                while self._at < self._asked.span.stop:
                    stop = min(await reader.readable(self._at), self._asked.span.stop)
                    await sender.send(reader.fd, ByteRange(self._at, stop))
            if not self._asked.size:
                await reader.readable(0)  # of an empty blob no byte can be withheld until it is proven
            await self._response.write_eof()
        except StoreFull:
            return await self.passed_through()
        except (MirrorError, ConnectionError):
            cut(self._request)
        finally:
            self._count()
        return self._response

    async def passed_through(self) -> web.StreamResponse:
        """Send straight from upstream, from where we are, keeping nothing."""
        passage = self._blobs.pass_through(self._asked, self._at)
        if not self._response.prepared:
            self._response.headers["X-Mirror-Cache"] = Served.PASS.value
            self._served = Served.PASS
        try:
            async with aclosing(passage.chunks()) as chunks:
                async for chunk in chunks:
                    if not self._response.prepared:
                        await self._response.prepare(self._request)
                    await self._response.write(chunk)
                    self._moved(len(chunk))
            if not self._response.prepared:
                await self._response.prepare(self._request)
            await self._response.write_eof()
        except ConnectionError:
            cut(self._request)
        except MirrorError:
            if not self._response.prepared:
                raise
            cut(self._request)
        finally:
            self._count()
        return self._response

    def _moved(self, count: int) -> None:
        self._at += count

    def _count(self) -> None:
        self._request[SENT] = self._at - self._asked.span.start
        sent, self._counted = self._at - self._counted, self._at
        if sent:
            self._blobs.served(self._asked, self._served, sent)


def _has_it(request: web.Request, digest: Digest) -> bool:
    """Whether the client says that it has the blob: what a digest names never changes."""
    said = request.headers.get("If-None-Match", "")
    return f'"{digest}"' in said


def _pointing_to(there: str, digest: Digest) -> web.Response:
    """Return a 307, which is the one redirect that Ollama takes here (server/download.go; docs/protocol.md §1)."""
    headers = {**VERSION, "Location": there, "Docker-Content-Digest": str(digest), "Cache-Control": "no-store"}
    return web.Response(status=307, headers=headers)


def _head(asked: Asked, served: Served) -> web.StreamResponse:
    headers = {
        **VERSION,
        "Docker-Content-Digest": str(asked.digest),
        "ETag": f'"{asked.digest}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "Cache-Control": "max-age=31536000, immutable",
        "X-Mirror-Cache": served.value,
    }
    if asked.ranged:
        headers["Content-Range"] = content_range(asked.span, asked.size)
    response = web.StreamResponse(status=206 if asked.ranged else 200, headers=headers)
    response.content_length = len(asked.span)
    return response
