"""Small questions to an upstream and their answers: redirects, tokens and retries are dealt with here."""

import asyncio
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from enum import Enum, auto
from pathlib import Path
from typing import TypeVar

import aiohttp
import stamina
from aiohttp import encode_basic_auth
from yarl import URL

from mirror.config import UpstreamSettings
from mirror.errors import (
    MirrorError,
    RateLimited,
    UpstreamMisbehaved,
    UpstreamUnavailable,
)
from mirror.events import Events, UpstreamAnswered
from mirror.tracing import span
from mirror.upstream.addresses import Guard, GuardedResolver
from mirror.upstream.answers import refusal
from mirror.upstream.auth import Challenge, Signer, anonymous_request
from mirror.upstream.chain import Chain
from mirror.upstream.reply import Reply, body_of, redirect_of, token_in

T = TypeVar("T")
_REDIRECTS = 5
_LONGEST_WAIT_S = 30.0
_MOST_TOKENS = 1000
_TOKEN_BYTES = 1 << 20


class Session:
    """Asks one upstream. Safe for any number of tasks at once; close it when done."""

    def __init__(
        self,
        settings: UpstreamSettings,
        key_file: Path,
        events: Events,
        tls: ssl.SSLContext,
        guard: Guard,
        chain: Chain,
    ) -> None:
        self._settings = settings
        self._url = URL(settings.url)
        self._events = events
        self._guard = guard
        self._chain = chain
        self._signer = Signer(key_file)
        self._given = f"Bearer {settings.token.get_secret_value()}" if settings.token else None
        self._login = _login(settings)
        self._shown: OrderedDict[str, str] = OrderedDict()
        self._resolver = GuardedResolver(guard)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=settings.max_connections, resolver=self._resolver),
            headers={"User-Agent": settings.user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=True,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """End every connection."""
        await self._session.close()
        await self._resolver.close()

    def home_headers(self, repository: str) -> dict[str, str]:
        """Return what the upstream itself is told of us, and nobody it redirects to: what it accepted of late for a
        repository, or else the token we were given, and through which mirrors we are asked."""
        shown = self._shown.get(repository) or self._given
        return {"Via": self._chain.via(), **({"Authorization": shown} if shown else {})}

    async def get(
        self,
        url: URL,
        headers: Mapping[str, str],
        repository: str,
        what: str,
        read: Callable[[Reply], T],
        *,
        limit: int,
        attempts: int = 0,
        within_s: float | None = None,
    ) -> T:
        """GET with redirects, tokens and retries; return what ``read`` makes of a good answer.

        The body is read up to ``limit`` bytes; 0 leaves it unread. ``attempts`` is as the settings say unless
        given. ``within_s`` bounds it all.

        Raises:
            UpstreamError: what came instead of a good answer, or what ``read`` found wrong with it; ``what`` names
                in it what was asked for.
        """
        async for attempt in stamina.retry_context(
            on=_again,
            attempts=attempts or self._settings.retry_attempts + 1,
            timeout=None,
            wait_initial=self._settings.retry_delay,
            wait_max=_LONGEST_WAIT_S,
            wait_jitter=self._settings.retry_delay,
        ):
            with attempt:
                async with _as_unavailable(what), _within(within_s):
                    return read(await self._with_token(url, headers, repository, what, limit))
        raise AssertionError("stamina ends with an answer or an error")

    async def ask(self, url: URL, headers: Mapping[str, str], *, limit: int, within_s: float | None = None) -> Reply:
        """GET once, whatever the answer. Raises UpstreamUnavailable, UpstreamMisbehaved, ForbiddenAddress."""
        timeout = aiohttp.ClientTimeout(
            total=within_s or self._settings.timeout,
            sock_connect=self._settings.connect_timeout,
            sock_read=self._settings.stall_timeout,
        )
        begun, good = time.monotonic(), False
        try:
            with span("upstream", url=str(url.with_query(None))):
                async with self._open(url, headers, timeout, f"{url.host}") as reply:
                    good = reply.status < 500 and reply.status != 429
                    body = await body_of(reply, limit) if reply.status < 300 else b""
                    answer = Reply(url, reply.status, reply.headers.copy(), body)
        except UpstreamUnavailable:
            self._events.publish(UpstreamAnswered(url.host or "", time.monotonic() - begun, good))
            raise
        self._events.publish(UpstreamAnswered(url.host or "", time.monotonic() - begun, good))
        return answer

    def stream(
        self, url: URL, headers: Mapping[str, str], what: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """GET once, for reading the body as it comes; its errors are ours as long as the context lasts."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._settings.connect_timeout, sock_read=self._settings.stall_timeout
        )
        return self._open(url, headers, timeout, what)

    @asynccontextmanager
    async def _open(
        self, url: URL, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout, what: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with (
            _as_unavailable(what),
            self._session.get(url, headers=headers, allow_redirects=False, timeout=timeout) as reply,
        ):
            yield reply

    async def _with_token(self, url: URL, headers: Mapping[str, str], repository: str, what: str, limit: int) -> Reply:
        """Ask with what there is to show; where that is refused, with what each of our ways to identify ourselves gets.

        They are the login of the settings, nobody in particular, and our key.
        """
        reply = await self._follow(url, {**headers, **self.home_headers(repository)}, limit)
        for way in (_By.LOGIN, _By.NOBODY, _By.KEY) if self._login else (_By.NOBODY, _By.KEY):
            if reply.status != 401 or reply.url.origin() != self._url.origin():
                break
            shown = await self._authorization(reply.headers.get("WWW-Authenticate", ""), way)
            if shown is None:
                continue
            self._remember(repository, shown)
            reply = await self._follow(url, {**headers, **self.home_headers(repository)}, limit)
        if reply.status >= 300:
            away = reply.url.origin() != self._url.origin()
            raise refusal(reply.status, reply.headers, what, located=away, now=time.time())
        return reply

    def _remember(self, repository: str, shown: str) -> None:
        self._shown[repository] = shown
        self._shown.move_to_end(repository)
        if len(self._shown) > _MOST_TOKENS:
            self._shown.popitem(last=False)

    async def _authorization(self, challenge: str, way: "_By") -> str | None:
        """Return what answers a challenge (WWW-Authenticate); None where this way does not."""
        if way is _By.LOGIN and challenge.strip().lower().startswith("basic"):
            return self._login
        asked = Challenge.parse(challenge)
        if asked is None:
            return None
        asked.allowed_for(self._url, frozenset(self._settings.realms))
        token = await self._token(asked, way)
        return f"Bearer {token}" if token else None

    async def _token(self, challenge: Challenge, way: "_By") -> str | None:
        """Ask the realm for a token; None where it will not give one to this kind of caller."""
        if way is _By.KEY:
            url, authorization = self._signer.request(challenge)
            headers = {"Authorization": authorization}
        else:
            url = anonymous_request(challenge)
            headers = {"Authorization": self._login} if way is _By.LOGIN and self._login else {}
        reply = await self.ask(url, headers, limit=_TOKEN_BYTES)
        if reply.status in (400, 401, 403, 404):
            return None
        if 300 <= reply.status < 400:
            raise UpstreamMisbehaved(f"token of {url.host}: answered {reply.status}, a redirect")
        if reply.status >= 300:
            raise refusal(reply.status, reply.headers, f"token of {url.host}", located=False, now=time.time())
        return token_in(reply.body)

    async def _follow(self, url: URL, headers: Mapping[str, str], limit: int) -> Reply:
        """GET, going along with redirects by hand: each target is looked at, and secrets stay at home."""
        for _ in range(_REDIRECTS):
            reply = await self.ask(url, headers, limit=limit)
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            target = redirect_of(reply)
            if target.origin() != url.origin():
                headers = {name: value for name, value in headers.items() if name not in ("Authorization", "Via")}
                if self._url.scheme == "https" and target.scheme != "https":
                    raise UpstreamMisbehaved(f"{url.host} redirects to {target.origin()}, which is not encrypted")
                await self._guard.check(target.host or "", target.port or 443)
            url = target
        raise UpstreamMisbehaved(f"{url.host}: more than {_REDIRECTS} redirects")


class _By(Enum):
    """As whom a token is asked for."""

    LOGIN = auto()
    NOBODY = auto()
    KEY = auto()


def _login(settings: UpstreamSettings) -> str | None:
    if settings.username is None:
        return None
    return encode_basic_auth(settings.username, settings.password.get_secret_value() if settings.password else "")


@asynccontextmanager
async def _as_unavailable(what: str) -> AsyncIterator[None]:
    """Turn the HTTP library's errors into ours."""
    try:
        yield
    except TimeoutError as error:
        raise UpstreamUnavailable(f"{what}: no answer in time") from error
    except (aiohttp.ClientError, OSError, UnicodeError) as error:
        raise UpstreamUnavailable(f"{what}: {str(error) or type(error).__name__}") from error


def _within(seconds: float | None) -> AbstractAsyncContextManager[object]:
    return nullcontext() if seconds is None else asyncio.timeout(seconds)


def _again(error: Exception) -> bool | float:
    """Say whether to ask again, or after how many seconds where the upstream named them."""
    if isinstance(error, RateLimited) and error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= _LONGEST_WAIT_S else False
    return isinstance(error, MirrorError) and not error.permanent
