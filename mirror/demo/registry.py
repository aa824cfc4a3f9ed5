"""A registry that behaves as registry.ollama.ai does, over a folder ``write_model`` filled.

Manifests are called text/plain and carry only Ollama's digest header; a blob is a redirect to a signed address
on another host name, which serves exact ranges. It counts what it sends, so that a demo can show what a mirror saves.
"""

import asyncio
import hmac
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from mirror.demo.model import blob_path, manifest_path
from mirror.values import ByteRange, Digest, Invalid, InvalidRange, ModelName
from mirror.values.http_range import RangeNotSatisfiable, content_range, parse_range

_SENDFILE_BYTES = 1 << 20


@dataclass(slots=True)
class Counters:
    """What a registry did since it began.

    ``requests`` counts by kind: manifest, blob (the answers that redirect), signed (those with bytes), other.
    ``blob_bytes`` are those that went out: of a dropped connection, only what the system had taken.
    """

    requests: Counter[str] = field(default_factory=Counter)
    blob_bytes: int = 0
    bytes_of: Counter[Digest] = field(default_factory=Counter)


COUNTERS = web.AppKey("counters", Counters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Signs addresses of blobs, and knows its own signatures until they expire."""

    secret: bytes
    valid_s: float = 1200
    now: Callable[[], float] = time.time

    def sign(self, digest: Digest) -> dict[str, str]:
        """Return the query that opens this blob from now on for ``valid_s`` seconds."""
        expires = f"{self.now() + self.valid_s:.3f}"
        return {"expires": expires, "signature": self._signature(digest, expires)}

    def problem(self, digest: Digest, expires: str, signature: str) -> str | None:
        """Return what is wrong with a query, None if nothing is."""
        if not hmac.compare_digest(signature.encode(), self._signature(digest, expires).encode()):
            return "the signature does not match"
        return "the address has expired" if float(expires) <= self.now() else None

    def _signature(self, digest: Digest, expires: str) -> str:
        return hmac.new(self.secret, f"{digest}?{expires}".encode(), sha256).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRegistry:
    """Where a running registry listens, and what it has done so far."""

    url: str
    counters: Counters


def registry_app(
    folder: Path,
    *,
    blob_host: str | None = "localhost",
    valid_s: float = 1200,
    secret: bytes | None = None,
    now: Callable[[], float] = time.time,
) -> web.Application:
    """Return the registry of the models in ``folder``; its counters are ``app[COUNTERS]``.

    Blobs are redirected to ``blob_host`` at the port of the request, by addresses valid for ``valid_s``
    seconds. Without ``blob_host`` it serves them itself and sends no Location, as a plain docker-registry
    does: Ollama refuses that.
    """
    signer = Signer(secret=secret or os.urandom(32), valid_s=valid_s, now=now)
    registry = _Registry(folder, blob_host, signer)
    app = web.Application(middlewares=[_count])
    app[COUNTERS] = Counters()
    app.router.add_get("/v2/{name:.+}/manifests/{tag}", registry.manifest, name="manifest", allow_head=False)
    app.router.add_get("/v2/{name:.+}/blobs/{digest}", registry.blob, name="blob")
    app.router.add_get("/signed/{digest}", registry.signed, name="signed")
    return app


@asynccontextmanager
async def running_app(app: web.Application, *, port: int = 0) -> AsyncIterator[str]:
    """Serve ``app`` on 127.0.0.1 while the block runs; yields its URL. Port 0 lets the system choose."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running_registry(
    folder: Path,
    *,
    port: int = 0,
    blob_host: str | None = "localhost",
    valid_s: float = 1200,
    secret: bytes | None = None,
    now: Callable[[], float] = time.time,
) -> AsyncIterator[RunningRegistry]:
    """Serve ``registry_app`` on 127.0.0.1 while the block runs."""
    app = registry_app(folder, blob_host=blob_host, valid_s=valid_s, secret=secret, now=now)
    async with running_app(app, port=port) as url:
        yield RunningRegistry(url=url, counters=app[COUNTERS])


def signed_url(request: web.Request, host: str, signer: Signer, digest: Digest) -> URL:
    """Return the address under which this server gives the blob away, under another of its host names."""
    return request.url.with_host(host).with_path(f"/signed/{digest}").with_query(signer.sign(digest))


def check_signature(request: web.Request, signer: Signer, digest: Digest) -> None:
    """Raise 403 unless the request's query is a valid signature for this blob."""
    problem = signer.problem(digest, request.query.get("expires", ""), request.query.get("signature", ""))
    if problem:
        raise web.HTTPForbidden(text=f"<Error><Code>AccessDenied</Code><Message>{problem}</Message></Error>")


def asked_range(request: web.Request, size: int) -> ByteRange | None:
    """Return the range a request asks for, None for the whole; raise 416 if there is no such byte."""
    header = request.headers.get("Range")
    try:
        return None if header is None else parse_range(header, size)
    except RangeNotSatisfiable as error:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"}) from error
    except InvalidRange:
        return None


def blob_response(span: ByteRange | None, size: int) -> web.StreamResponse:
    """Return the head of an answer with these bytes of a blob, or with all of it."""
    response = web.StreamResponse(status=206 if span else 200, headers={"Accept-Ranges": "bytes"})
    response.content_type = "application/octet-stream"
    response.content_length = len(span) if span else size
    if span:
        response.headers["Content-Range"] = content_range(span, size)
    return response


def unknown(code: str) -> web.HTTPNotFound:
    """Return the 404 of a registry, ``code`` being that of the OCI distribution-spec."""
    text = f'{{"errors":[{{"code":"{code}","message":"not found"}}]}}'
    return web.HTTPNotFound(text=text, content_type="application/json")


def asked_digest(request: web.Request) -> Digest:
    """Return the digest in the request's path; raise 404 if it is none."""
    try:
        return Digest.parse(request.match_info["digest"])
    except Invalid as error:
        raise unknown("BLOB_UNKNOWN") from error


@web.middleware
async def _count(request: web.Request, handler: Handler) -> web.StreamResponse:
    request.app[COUNTERS].requests[request.match_info.route.name or "other"] += 1
    return await handler(request)


@dataclass(frozen=True, slots=True)
class _Registry:
    folder: Path
    blob_host: str | None
    signer: Signer

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        try:
            name = ModelName.parse(f"{request.match_info['name']}:{request.match_info['tag']}")
            raw = await asyncio.to_thread(manifest_path(self.folder, name).read_bytes)
        except (Invalid, OSError) as error:
            raise unknown("MANIFEST_UNKNOWN") from error
        digest = Digest.of(raw)
        headers = {"Content-Type": "text/plain; charset=utf-8", "Ollama-Content-Digest": digest.hex}
        return web.Response(body=raw, headers=headers)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        digest = asked_digest(request)
        if not blob_path(self.folder, digest).is_file():
            raise unknown("BLOB_UNKNOWN")
        if self.blob_host is None:
            return await self._send(request, digest)
        raise web.HTTPTemporaryRedirect(signed_url(request, self.blob_host, self.signer, digest))

    async def signed(self, request: web.Request) -> web.StreamResponse:
        digest = asked_digest(request)
        check_signature(request, self.signer, digest)
        return await self._send(request, digest)

    async def _send(self, request: web.Request, digest: Digest) -> web.StreamResponse:
        try:
            file = blob_path(self.folder, digest).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise unknown("BLOB_UNKNOWN") from error
        with file:
            size = os.fstat(file.fileno()).st_size
            span = asked_range(request, size)
            response = blob_response(span, size)
            await response.prepare(request)
            if request.method == "GET":
                await _send_file(request, file, span or ByteRange(0, size), digest)
        return response


async def _send_file(request: web.Request, file: BinaryIO, span: ByteRange, digest: Digest) -> None:
    """Send these bytes, counted as they go out; returns early if the client leaves."""
    loop, counters = asyncio.get_running_loop(), request.app[COUNTERS]
    at = span.start
    while at < span.stop and request.transport is not None and not request.transport.is_closing():
        wanted = min(span.stop - at, _SENDFILE_BYTES)
        file.seek(at)
        try:
            await loop.sendfile(request.transport, file, at, wanted, fallback=False)
        except (ConnectionError, asyncio.SendfileNotAvailableError):
            # The latter is what asyncio calls a connection that breaks before the first byte.
            return
        finally:
            # asyncio leaves the file where it stopped, after an error too.
            sent = file.tell() - at
            counters.blob_bytes += sent
            counters.bytes_of[digest] += sent
        if not sent:
            return
        at += sent
