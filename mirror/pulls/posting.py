"""POSTs of JSON to webhooks: signed if there is a secret, tried once each. Network out only."""

import hashlib
import hmac
import time
from collections.abc import Callable

import aiohttp
from aiohttp.abc import AbstractResolver

from mirror import __version__
from mirror.errors import ForbiddenAddress
from mirror.upstream.tls import client_context

TIMEOUT_S = 10.0


class Posting:
    """Posts what a webhook is to be told. For the event loop's thread."""

    def __init__(
        self, secret: str | None, *, timeout_s: float = TIMEOUT_S, now: Callable[[], float] = time.time
    ) -> None:
        """``timeout_s`` is for one try; without a ``secret`` nothing is signed."""
        self._secret = secret
        self._timeout_s = timeout_s
        self._now = now

    def session(self, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
        """Return what ``post`` is done with; a ``resolver`` says where names lead, and then no proxy is asked."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=client_context(), resolver=resolver),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"User-Agent": f"ollama-mirror/{__version__}", "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=resolver is None,
        )

    async def post(
        self, session: aiohttp.ClientSession, url: str, event: str, delivery: str, body: bytes
    ) -> str | None:
        """Try once; return what went wrong, without what the URL may keep secret. No redirect is followed."""
        headers = {"X-Mirror-Event": event, "X-Mirror-Delivery": delivery, **self._signed(body)}
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as reply:
                return None if 200 <= reply.status < 300 else f"it answered {reply.status}"
        except TimeoutError:
            return f"no answer in {self._timeout_s:g} s"
        except ValueError:
            return "the address cannot be used"
        except (aiohttp.ClientError, OSError, ForbiddenAddress) as error:
            return str(error) or type(error).__name__

    def _signed(self, body: bytes) -> dict[str, str]:
        if self._secret is None:
            return {}
        timestamp = str(int(self._now()))
        signature = hmac.new(self._secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        return {"X-Mirror-Timestamp": timestamp, "X-Mirror-Signature": f"sha256={signature}"}
