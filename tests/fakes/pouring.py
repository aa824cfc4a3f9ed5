"""How the fake registry lets the bytes of blobs go out: slowly, wrongly, incompletely, or not before it is told to."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from mirror.demo.registry import asked_range, blob_response
from mirror.values import ByteRange, Digest
from mirror.values.http_range import content_range
from tests.fakes import Fault, Faults, Log, Plan, Wrong

LEFT = 499
"""The logged status of a request whose client left before it was answered."""

_PIECE_BYTES = 128 << 10


@dataclass(slots=True)
class Running:
    """A request being answered; ``key`` is its kind and digest."""

    key: tuple[str, str]
    status: int = LEFT
    sent: int = 0


RUNNING = web.RequestKey("running", Running)


class Pouring:
    """Sends blobs and counts what went out, in ``sent``."""

    def __init__(self, blobs: Mapping[Digest, bytes], faults: Faults, log: Log) -> None:
        self._blobs = blobs
        self._faults = faults
        self._log = log
        self.sent: Counter[Digest] = Counter()
        self._held: dict[Digest, int] = {}
        self._gates: dict[Digest, asyncio.Event] = {}

    def hold(self, digest: Digest, offset: int) -> None:
        """Let no byte of the blob at ``offset`` or after it go out until released."""
        self._held[digest] = offset

    def release(self, digest: Digest) -> None:
        """End the hold on a blob, and let its stalled answers go on."""
        self._held.pop(digest, None)
        gate = self._gates.pop(digest, None)
        if gate is not None:
            gate.set()

    async def send(self, request: web.Request, digest: Digest) -> web.StreamResponse:
        """Answer with a blob or the range of it that is asked, as wrongly as the faults will have it."""
        blob, running = self._blobs[digest], request[RUNNING]
        whole = "Range" in request.headers and self._faults.take(Wrong.WHOLE, *running.key)
        span = None if whole else asked_range(request, len(blob))
        here = span or ByteRange(0, len(blob))
        response = blob_response(span, len(blob))
        if span and (fault := self._faults.take(Wrong.RANGE, *running.key)):
            moved = ByteRange(span.start + int(fault.value), span.stop + int(fault.value))
            response.headers["Content-Range"] = content_range(moved, len(blob))
        off = self._faults.take(Wrong.LENGTH, *running.key)
        length = max(0, len(here) + (int(off.value) if off else 0))
        response.content_length = length
        await response.prepare(request)
        running.status = response.status
        if request.method == "GET":
            here = ByteRange(here.start, min(here.stop, here.start + length))
            try:
                await self._pour(request, response, digest, here)
                if length > len(here):
                    transport_of(request).close()
            except ConnectionError:
                return response
        return response

    async def _pour(self, request: web.Request, response: web.StreamResponse, digest: Digest, here: ByteRange) -> None:
        """Send these bytes as slowly, wrongly and incompletely as the faults will have it."""
        plan = Plan.make(self._faults, str(digest), here)
        # With no buffer of its own, a write returns when the system has taken the bytes: counts are true.
        transport_of(request).set_write_buffer_limits(0)
        at = here.start
        while at < here.stop:
            held = self._held.get(digest)
            if at == plan.cut_at:
                reset(transport_of(request))
                raise ConnectionResetError
            if at == plan.stall_at or (held is not None and held <= at):
                plan.stall_at = None if at == plan.stall_at else plan.stall_at
                await self._gates.setdefault(digest, asyncio.Event()).wait()
                continue
            stop = plan.stop(at, _PIECE_BYTES, held)
            await response.write(self._piece(digest, ByteRange(at, stop)))
            request[RUNNING].sent += stop - at
            self.sent[digest] += stop - at
            self._log.tell()
            if plan.rate is not None:
                await asyncio.sleep((stop - at) / plan.rate)
            at = stop

    def _piece(self, digest: Digest, span: ByteRange) -> bytes:
        piece = bytearray(self._blobs[digest][span.start : span.stop])
        done: list[Fault] = []

        def here(fault: Fault) -> bool:
            return int(fault.value) in span and fault not in done

        while fault := self._faults.take(Wrong.CORRUPT, "blob", str(digest), here):
            piece[int(fault.value) - span.start] ^= 0xFF
            done.append(fault)
        return bytes(piece)


def transport_of(request: web.Request) -> asyncio.Transport:
    """The connection of a request. Raises ConnectionResetError once it has gone."""
    if request.transport is None:
        raise ConnectionResetError
    return request.transport


def reset(transport: asyncio.BaseTransport) -> None:
    """Close so that the other side gets a reset, not an end."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
