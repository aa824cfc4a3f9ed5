"""``/v2`` as a client: manifests, where a blob's bytes are, and the bytes."""

import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import aiohttp
import stamina
from yarl import URL

from mirror.config import UpstreamSettings
from mirror.errors import (
    DeniedByUpstream,
    MirrorError,
    RateLimited,
    UpstreamError,
    UpstreamMisbehaved,
    UpstreamUnavailable,
)
from mirror.events import Events, UpstreamAnswered
from mirror.upstream.addresses import Guard
from mirror.upstream.answers import refusal
from mirror.upstream.auth import Challenge, Signer, anonymous_request
from mirror.upstream.budget import Budget
from mirror.upstream.carrier import Address, Carrier, Transfer
from mirror.upstream.tls import client_context
from mirror.values import MANIFEST_TYPES, MAX_MANIFEST_BYTES, ByteRange, Digest, InvalidManifest, InvalidRange, Manifest
from mirror.values.http_range import parse_content_range, range_header

_REDIRECTS = 5
_LONGEST_WAIT_S = 30.0
_STREAM_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class _Reply:
    """A small answer, read to its end. ``url`` is what was asked last, after redirects."""

    url: URL
    status: int
    headers: Mapping[str, str]
    body: bytes


class Upstream:
    """One registry above us. Safe for any number of tasks at once; close it when done.

    Speaks to registry.ollama.ai as well as to ordinary registries: content types of manifests are not believed,
    Docker-Content-Digest may be missing, HEAD is not used, blobs may be redirected to signed addresses that
    expire (docs/protocol.md §4).
    """

    def __init__(self, settings: UpstreamSettings, key_file: Path, events: Events) -> None:
        self.settings = settings
        self.url = URL(settings.url)
        self.budget = Budget(settings.rate)
        self._events = events
        self._tls: ssl.SSLContext = client_context()
        self._signer = Signer(key_file)
        self._tokens: dict[str, str] = {}
        self.carrier = Carrier(
            threads=settings.max_connections,
            connect_timeout_s=settings.connect_timeout,
            stall_timeout_s=settings.stall_timeout,
            budget=self.budget,
            tls=self._tls,
        )
        proxied = _proxy_for(self.url) is not None
        self.guard = Guard(settings.private_redirects, self.url.host or "", self.url.port or 443, proxied=proxied)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=settings.max_connections),
            headers={"User-Agent": settings.user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=True,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

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
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        reply = await self._small(url, headers, repository, what, limit=MAX_MANIFEST_BYTES, brief=brief)
        try:
            manifest = Manifest.parse(reply.body, reply.headers.get("Content-Type", ""))
        except InvalidManifest as error:
            raise UpstreamMisbehaved(f"{what}: {error}") from error
        announced = reply.headers.get("Docker-Content-Digest") or reply.headers.get("Ollama-Content-Digest") or ""
        for said in (reference if ":" in reference else "", announced):
            if said and said.removeprefix("sha256:").lower() != manifest.digest.hex:
                raise UpstreamMisbehaved(f"{what}: {said} was promised, the bytes are {manifest.digest}")
        return manifest

    async def locate(self, repository: str, digest: Digest, size: int | None) -> Address:
        """Ask where a blob's bytes are and how many there are, by asking for its first one.

        Raises:
            NotFoundUpstream and the other UpstreamErrors; UpstreamMisbehaved where the size is not ``size``.
        """
        url = self._v2(repository) / "blobs" / str(digest)
        what = f"blob {digest.short} of {repository}"
        wanted = {} if size == 0 else {"Range": range_header(ByteRange(0, 1))}
        reply = await self._small(url, wanted, repository, what, limit=0, brief=False)
        found, ranged = _size(reply, what)
        if size is not None and found != size:
            raise UpstreamMisbehaved(f"{what}: the manifest says {size} bytes, the upstream {found}")
        same = reply.url.origin() == self.url.origin()
        headers = {"User-Agent": self.settings.user_agent, **(self._authorization(repository) if same else {})}
        return Address(reply.url, found, headers, _proxy_for(reply.url), reply.url != url, ranged)

    async def carry(self, address: Address, transfer: Transfer) -> None:
        """Bring in one range by a thread (see Carrier.carry)."""
        await self.carrier.carry(address, transfer, self.guard)

    @asynccontextmanager
    async def stream(self, address: Address, span: ByteRange) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open one range for reading in the event loop, for bytes that are not kept.

        Raises:
            UpstreamError: before the first byte or between two; what was read so far is right as far as it goes.
        """
        headers = {**address.headers, "Range": range_header(span)}
        what = f"{address.url.host}: bytes {span.start} to {span.stop}"
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.settings.connect_timeout, sock_read=self.settings.stall_timeout
        )
        with _as_unavailable(what):
            async with self._session.get(address.url, headers=headers, allow_redirects=False, timeout=timeout) as reply:
                if reply.status == 206:
                    skip = 0
                    if parse_content_range(reply.headers.get("Content-Range", ""))[0] != span:
                        raise UpstreamMisbehaved(f"{what}: got {reply.headers['Content-Range']}")
                elif reply.status == 200 and reply.content_length in (None, address.size):
                    skip = span.start
                else:
                    raise refusal(reply.status, reply.headers, what, signed=address.signed, now=time.time())
                yield _exactly(reply.content, skip, len(span), what)

    async def answers(self) -> bool:
        """Say whether the upstream answers at all, whatever it says."""
        try:
            await self._once(self.url / "v2" / "", {}, limit=0, timeout_s=self.settings.stale_timeout)
        except UpstreamError:
            return False
        return True

    def _v2(self, repository: str) -> URL:
        return self.url.joinpath("v2", *repository.split("/"))

    def _authorization(self, repository: str) -> dict[str, str]:
        token = self._tokens.get(repository)
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def _small(
        self, url: URL, headers: Mapping[str, str], repository: str, what: str, *, limit: int, brief: bool
    ) -> _Reply:
        """GET with redirects, tokens and retries; only a good answer comes back."""
        timeout_s = self.settings.stale_timeout if brief else self.settings.timeout
        attempts = 1 if brief else self.settings.retry_attempts + 1
        async for attempt in stamina.retry_context(
            on=_again, attempts=attempts, timeout=None, wait_initial=self.settings.retry_delay, wait_max=_LONGEST_WAIT_S
        ):
            with attempt:
                return await self._with_token(url, headers, repository, what, limit=limit, timeout_s=timeout_s)
        raise AssertionError("stamina ends with an answer or an error")

    async def _with_token(
        self, url: URL, headers: Mapping[str, str], repository: str, what: str, *, limit: int, timeout_s: float
    ) -> _Reply:
        """Ask with what token there is; where that is refused get one as nobody, then one by our key."""
        reply = await self._follow(url, {**headers, **self._authorization(repository)}, limit, timeout_s)
        for signed in (False, True):
            challenge = Challenge.parse(reply.headers.get("WWW-Authenticate", "")) if reply.status == 401 else None
            if challenge is None:
                break
            challenge.allowed_for(self.url, frozenset(self.settings.realms))
            token = await self._token(challenge, timeout_s, signed=signed)
            if token is None:
                continue
            self._tokens[repository] = token
            reply = await self._follow(url, {**headers, **self._authorization(repository)}, limit, timeout_s)
        if reply.status >= 300:
            away = reply.url.origin() != self.url.origin()
            raise refusal(reply.status, reply.headers, what, signed=away, now=time.time())
        return reply

    async def _token(self, challenge: Challenge, timeout_s: float, *, signed: bool) -> str | None:
        """Ask the realm for a token; None where it will not give one to this kind of caller."""
        if signed:
            url, authorization = self._signer.request(challenge)
            headers = {"Authorization": authorization}
        else:
            url, headers = anonymous_request(challenge), {}
        reply = await self._once(url, headers, limit=1 << 20, timeout_s=timeout_s)
        if reply.status in (400, 401, 403, 404):
            return None
        if reply.status >= 300:
            raise refusal(reply.status, reply.headers, f"token of {url.host}", signed=False, now=time.time())
        return _token_in(reply.body)

    async def _follow(self, url: URL, headers: Mapping[str, str], limit: int, timeout_s: float) -> _Reply:
        """GET, going along with redirects by hand: each target is looked at, and secrets stay at home."""
        for _ in range(_REDIRECTS):
            reply = await self._once(url, headers, limit=limit, timeout_s=timeout_s)
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            target = _redirect(reply)
            if target.origin() != url.origin():
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
                if self.url.scheme == "https" and target.scheme != "https":
                    raise UpstreamMisbehaved(f"{url.host} redirects to {target.origin()}, which is not encrypted")
                await self.guard.check(target.host or "", target.port or 443)
            url = target
        raise UpstreamMisbehaved(f"{url.host}: more than {_REDIRECTS} redirects")

    async def _once(self, url: URL, headers: Mapping[str, str], *, limit: int, timeout_s: float) -> _Reply:
        """One GET. The body is read up to ``limit`` bytes where the answer is good; 0 leaves it unread."""
        timeout = aiohttp.ClientTimeout(
            total=timeout_s, sock_connect=self.settings.connect_timeout, sock_read=self.settings.stall_timeout
        )
        begun, good = time.monotonic(), False
        try:
            with _as_unavailable(f"{url.host}"):
                async with self._session.get(url, headers=headers, allow_redirects=False, timeout=timeout) as reply:
                    good = reply.status < 500 and reply.status != 429
                    body = await _body(reply, limit) if reply.status < 300 else b""
                    return _Reply(url, reply.status, reply.headers.copy(), body)
        finally:
            self._events.publish(UpstreamAnswered(url.host or "", time.monotonic() - begun, good))


class _as_unavailable:  # noqa: N801  # reads as a statement
    """Turn the HTTP library's errors into ours."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, TimeoutError):
            raise UpstreamUnavailable(f"{self._what}: no answer in time") from error
        if isinstance(error, (aiohttp.ClientError, OSError)):
            raise UpstreamUnavailable(f"{self._what}: {str(error) or type(error).__name__}") from error
        if isinstance(error, InvalidRange):
            raise UpstreamMisbehaved(f"{self._what}: {error}") from error


def _again(error: Exception) -> bool | float:
    """Say whether to ask again, or after how many seconds where the upstream named them."""
    if isinstance(error, RateLimited) and error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= _LONGEST_WAIT_S else False
    return isinstance(error, MirrorError) and not error.permanent


def _size(reply: _Reply, what: str) -> tuple[int, bool]:
    """Return a blob's size and whether ranges of it can be asked, from an answer to a range request."""
    if reply.status == 206:
        try:
            _, size = parse_content_range(reply.headers.get("Content-Range", ""))
        except InvalidRange as error:
            raise UpstreamMisbehaved(f"{what}: {error}") from error
        if size is not None:
            return size, True
    length = reply.headers.get("Content-Length", "")
    if reply.status != 200 or not length.isdigit():
        raise UpstreamMisbehaved(f"{what}: answered {reply.status} without saying its size")
    return int(length), False


def _redirect(reply: _Reply) -> URL:
    try:
        target = reply.url.join(URL(reply.headers["Location"], encoded=True))
    except (KeyError, ValueError) as error:
        raise UpstreamMisbehaved(f"{reply.url.host}: a redirect without a usable Location") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise UpstreamMisbehaved(f"{reply.url.host}: a redirect to {target}")
    return target


async def _body(reply: aiohttp.ClientResponse, limit: int) -> bytes:
    if limit == 0:
        reply.close()
        return b""
    body = await reply.content.read(limit + 1)
    while len(body) <= limit and (more := await reply.content.read(limit + 1 - len(body))):
        body += more
    if len(body) > limit:
        raise UpstreamMisbehaved(f"{reply.url.host}: an answer of more than {limit} bytes")
    return body


async def _exactly(content: aiohttp.StreamReader, skip: int, count: int, what: str) -> AsyncIterator[bytes]:
    """Yield ``count`` bytes after the first ``skip``, or raise where the body ends before."""
    with _as_unavailable(what):
        while skip or count:
            chunk = await content.read(min(skip or count, _STREAM_BYTES))
            if not chunk:
                raise UpstreamUnavailable(f"{what}: the body ended early")
            if skip:
                skip -= len(chunk)
            else:
                count -= len(chunk)
                yield chunk


def _token_in(body: bytes) -> str:
    try:
        said = json.loads(body)
        token = said.get("token") or said.get("access_token")
    except (ValueError, AttributeError) as error:
        raise DeniedByUpstream("the token server's answer is no JSON object") from error
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise DeniedByUpstream("the token server's answer has no token")
    return token


def _proxy_for(url: URL) -> URL | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for an address."""
    said = getproxies().get(url.scheme)
    if not said or proxy_bypass(url.host or ""):
        return None
    return URL(said if "://" in said else f"http://{said}")
