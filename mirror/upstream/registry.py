"""``/v2`` as a client: manifests, where a blob's bytes are, and the bytes."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from mirror.config import UpstreamSettings
from mirror.errors import UpstreamError, UpstreamMisbehaved, UpstreamUnavailable
from mirror.events import Events
from mirror.upstream.addresses import Guard
from mirror.upstream.answers import refusal
from mirror.upstream.budget import Budget
from mirror.upstream.carrier import Carrier
from mirror.upstream.chain import Chain
from mirror.upstream.connections import Address, proxy_for
from mirror.upstream.reply import Reply
from mirror.upstream.session import Session
from mirror.upstream.tls import client_context
from mirror.upstream.transfer import Transfer
from mirror.values import MANIFEST_TYPES, MAX_MANIFEST_BYTES, ByteRange, Digest, InvalidManifest, InvalidRange, Manifest
from mirror.values.http_range import parse_content_range, range_header

_STREAM_BYTES = 256 << 10


class Upstream:
    """One registry above us. Safe for any number of tasks at once; close it when done.

    Speaks to registry.ollama.ai as well as to ordinary registries: content types of manifests are not believed,
    Docker-Content-Digest may be missing, HEAD is not used, blobs may be redirected to signed addresses that
    expire (docs/protocol.md §4).
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        key_file: Path,
        events: Events,
        chain: Chain | None = None,
        ahead: Budget | None = None,
    ) -> None:
        """``ahead`` is the budget that it shares with others for transfers that nobody waits for; None is no limit.

        Until somebody sets the budget's rate to what holds now, it is the one outside of all windows.
        """
        self.settings = settings
        self.url = URL(settings.url)
        self.budget = Budget(settings.rate.default if settings.rate else None)
        tls = client_context()
        self.carrier = Carrier(
            threads=settings.max_connections,
            connect_timeout_s=settings.connect_timeout,
            stall_timeout_s=settings.stall_timeout,
            budget=self.budget,
            ahead=ahead or Budget(None),
            tls=tls,
        )
        proxied = proxy_for(self.url) is not None
        self.guard = Guard(settings.private_redirects, self.url.host or "", self.url.port or 443, proxied=proxied)
        self._session = Session(settings, key_file, events, tls, self.guard, chain or Chain())

    async def close(self) -> None:
        """End every connection."""
        self.carrier.close()
        await self._session.close()

    async def manifest(self, repository: str, reference: str, *, brief: bool = False) -> Manifest:
        """Fetch a manifest by tag or digest. ``brief``: a stored one can stand in, so one try in a short time.

        Raises:
            NotFoundUpstream, DeniedByUpstream, RateLimited, UpstreamUnavailable, UpstreamMisbehaved (bytes that
            are no manifest, or not those of the digest asked or announced).
        """
        url = self._v2(repository) / "manifests" / reference
        what = f"manifest {repository}:{reference}"
        return await self._session.get(
            url,
            {"Accept": ", ".join(MANIFEST_TYPES)},
            repository,
            what,
            lambda reply: _manifest(reply, reference, what),
            limit=MAX_MANIFEST_BYTES,
            attempts=1 if brief else 0,
            within_s=self.settings.stale_timeout if brief else None,
        )

    async def locate(self, repository: str, digest: Digest, size: int | None, *, once: bool = False) -> Address:
        """Ask where a blob's bytes are and how many there are, by asking for its first one.

        ``once``: the caller tries again by itself.

        Raises:
            NotFoundUpstream and the other UpstreamErrors; UpstreamMisbehaved where the size is not ``size``.
        """
        url = self._v2(repository) / "blobs" / str(digest)
        what = f"blob {digest.short} of {repository}"
        wanted = {} if size == 0 else {"Range": range_header(ByteRange(0, 1))}

        def read(reply: Reply) -> Address:
            found, ranged = _size(reply, what)
            if size is not None and found != size:
                raise UpstreamMisbehaved(f"{what}: the manifest says {size} bytes, the upstream {found}")
            home = self._session.home_headers(repository) if reply.url.origin() == self.url.origin() else {}
            headers = {"User-Agent": self.settings.user_agent, **home}
            return Address(reply.url, found, headers, proxy_for(reply.url), ranged)

        return await self._session.get(url, wanted, repository, what, read, limit=0, attempts=1 if once else 0)

    async def carry(self, address: Address, transfer: Transfer) -> None:
        """Bring in one range by a thread (see Carrier.carry)."""
        await self.carrier.carry(address, transfer, self.guard)

    @asynccontextmanager
    async def stream(self, address: Address, span: ByteRange) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open one range for reading in the event loop, for bytes that are not kept.

        Raises:
            UpstreamError: before the first byte or between two; what was read so far is right as far as it goes.
        """
        what = f"{address.url.host}: bytes {span.start} to {span.stop}"
        headers = {**address.headers, "Range": range_header(span)}
        async with self._session.stream(address.url, headers, what) as reply:
            if reply.status == 206:
                skip = 0
                if _content_range(reply.headers.get("Content-Range", ""), what)[0] != span:
                    raise UpstreamMisbehaved(f"{what}: got {reply.headers['Content-Range']}")
            elif reply.status == 200 and reply.content_length in (None, address.size):
                skip = span.start
            elif reply.status < 300:
                raise UpstreamMisbehaved(f"{what}: answered {reply.status} with {reply.content_length} bytes")
            else:
                raise refusal(reply.status, reply.headers, what, located=True, now=time.time())
            yield self._exactly(reply.content, skip, len(span), what)

    async def answers(self) -> bool:
        """Say whether the upstream answers at all, whatever it says."""
        try:
            await self.greeting()
        except UpstreamError:
            return False
        return True

    async def greeting(self) -> Reply:
        """Ask once for what every registry has, and return the answer, whatever it is. Raises UpstreamError."""
        return await self._session.ask(self.url / "v2" / "", {}, limit=0, within_s=self.settings.stale_timeout)

    def _v2(self, repository: str) -> URL:
        return self.url.joinpath("v2", *repository.split("/"))

    async def _exactly(self, content: aiohttp.StreamReader, skip: int, count: int, what: str) -> AsyncIterator[bytes]:
        """Yield ``count`` bytes after the first ``skip``, or raise where the body ends before."""
        while skip or count:
            chunk = await content.read(min(skip or count, _STREAM_BYTES))
            if not chunk:
                raise UpstreamUnavailable(f"{what}: the body ended early")
            await self.budget.spend_waiting(len(chunk))
            if skip:
                skip -= len(chunk)
            else:
                count -= len(chunk)
                yield chunk


def _manifest(reply: Reply, reference: str, what: str) -> Manifest:
    """Read a manifest; raise UpstreamMisbehaved where it is none, or not that of the digest asked or announced."""
    try:
        manifest = Manifest.parse(reply.body, reply.headers.get("Content-Type", ""))
    except InvalidManifest as error:
        raise UpstreamMisbehaved(f"{what}: {error}") from error
    announced = reply.headers.get("Docker-Content-Digest") or reply.headers.get("Ollama-Content-Digest") or ""
    for said in (reference if ":" in reference else "", announced):
        if said and said.removeprefix("sha256:").lower() != manifest.digest.hex:
            raise UpstreamMisbehaved(f"{what}: {said} was promised, the bytes are {manifest.digest}")
    return manifest


def _size(reply: Reply, what: str) -> tuple[int, bool]:
    """Return a blob's size and whether ranges of it can be asked, from an answer to a range request."""
    if reply.status == 206:
        span, size = _content_range(reply.headers.get("Content-Range", ""), what)
        if size is not None and span == ByteRange(0, 1):
            return size, True
    length = reply.headers.get("Content-Length", "")
    if reply.status != 200 or not length.isdigit():
        raise UpstreamMisbehaved(f"{what}: answered {reply.status} without saying its size")
    return int(length), False


def _content_range(header: str, what: str) -> tuple[ByteRange, int | None]:
    try:
        return parse_content_range(header)
    except InvalidRange as error:
        raise UpstreamMisbehaved(f"{what}: {error}") from error
