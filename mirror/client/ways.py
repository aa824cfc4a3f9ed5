"""Which of a mirror's ways work from this machine, found by taking each. Network out only.

Through each way the mirror is asked who it is: only the same id, chosen anew at each of its starts, is a yes.
"""

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp
from yarl import URL

from mirror.client.admin import AdminClient
from mirror.client.fixed import FixedResolver
from mirror.client.probe import probe, sample
from mirror.errors import ServerError

_WITHIN = aiohttp.ClientTimeout(total=5)
_MOST = 1 << 20
_UNTRUSTED = (18, 19, 20, 21)  # X509_V_ERR_* of OpenSSL: nobody trusted has signed it
_NOT_PERMITTED = 47


Key = str | Callable[[], str] | None
"""What a mirror is shown, or what makes it anew each time; None shows nothing."""


class Outcome(StrEnum):
    """How a check ended: it works; something is to be done first; it should work and does not."""

    OK = "ok"
    NOT_READY = "not ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One way, taken; ``said`` is a sentence, ``advice`` what to do."""

    way: str
    outcome: Outcome
    said: str
    advice: str = ""


class _Silence(Check):
    """A check that nothing answered."""

    __slots__ = ()


def bearer(key: Key) -> dict[str, str]:
    """Return the header that shows a key, or none."""
    said = key() if callable(key) else key
    return {"Authorization": f"Bearer {said}"} if said else {}


async def resolved(host: str) -> list[str]:
    """Resolve a name as this machine does; none where it does not."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@dataclass(frozen=True, slots=True)
class Ground:
    """This machine: whom it trusts, how it resolves names, and the ports that a registry's name leads to."""

    tls: ssl.SSLContext
    resolve: Callable[[str], Awaitable[list[str]]] = resolved
    https_port: int = 443
    http_port: int = 80


@dataclass(frozen=True, slots=True)
class Seen:
    """What a mirror says of itself: ``lacks`` by the key of each way, empty where that is ready."""

    id: str
    registry: str
    proxy: str
    has_ca: bool
    lacks: Mapping[str, str]

    @classmethod
    def read(cls, said: Any) -> "Seen":
        """Read the JSON of ``/mirror/setup``. Raises ValueError."""
        try:
            lacks = {str(one["key"]): str(one["lacks"]) for one in said["ways"]}
            return cls(str(said["id"]), str(said["registry"]), str(said["proxy"]), bool(said["ca"]), lacks)
        except (KeyError, TypeError) as error:
            raise ValueError("these are no ways of a mirror") from error


class Ways:
    """The ways to one mirror, from here. Every check is bounded in time and changes nothing."""

    def __init__(self, url: str, ground: Ground, api_key: Key = None) -> None:
        self._url = URL(url)
        self._ground = ground
        self._api_key = api_key

    async def text(self, way: str | None) -> str:
        """Return the mirror's lines for people, of one way or all. Raises ServerError."""
        return (await self._own({"format": "text", **({"way": way} if way else {})})).decode(errors="replace")

    async def said(self, way: str | None = None) -> dict[str, Any]:
        """Return the same for programs. Raises ServerError."""
        body = await self._own({"format": "json", **({"way": way} if way else {})})
        try:
            said = json.loads(body)
            Seen.read(said)
        except ValueError as error:
            raise ServerError(f"{self._url} has no ways to tell; it is no mirror, or one older than this", 0) from error
        return dict(said)

    async def checks(self, said: dict[str, Any], key: str | None = None) -> list[Check]:
        """Take every way of ``said``, or the one of ``key``, and then look at how blobs come."""
        seen = Seen.read(said)
        takes = {"name": self._name, "plain-proxy": self._plain_proxy, "proxy": self._proxy, "dns": self._dns}
        checks = [await take(seen) for way, take in takes.items() if key in (None, way)]
        if key in (None, "folder") and "folder" in seen.lacks:
            checks.append(_folder(seen))
        checks.append(await self._blobs())
        return checks

    async def _own(self, query: dict[str, str]) -> bytes:
        where = self._url.joinpath("mirror", "setup").with_query(query)
        try:
            async with self._session() as session, session.get(where, timeout=_WITHIN) as reply:
                body = await _body(reply)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerError(f"{self._url} does not answer: {_reason(error)}", 0) from error
        if reply.status != 200:
            raise ServerError(f"{self._url} answered {reply.status}: it is no mirror, or an older one", reply.status)
        return body

    async def _name(self, seen: Seen) -> Check:
        if lacks := seen.lacks.get("name"):
            return Check("name", Outcome.NOT_READY, lacks)
        try:
            where = self._url.joinpath("v2", "")
            async with (
                self._session(with_key=True) as session,
                session.get(where, timeout=_WITHIN, allow_redirects=False) as reply,
            ):
                status = reply.status
        except (aiohttp.ClientError, TimeoutError) as error:
            return Check("name", Outcome.FAILED, f"{self._url} does not answer: {_reason(error)}", _LOOK)
        if status == 200:
            return Check("name", Outcome.OK, f"{where} answers")
        if status == 401:
            return Check("name", Outcome.NOT_READY, "the mirror asks for a key", _KEY)
        return Check("name", Outcome.FAILED, f"{self._url} answered {status} for /v2/", "ask the one who runs it why")

    async def _plain_proxy(self, seen: Seen) -> Check:
        return await self._through("plain-proxy", f"http://{seen.registry}", seen, self._through_proxy(seen))

    async def _proxy(self, seen: Seen) -> Check:
        if not seen.has_ca:
            return Check("proxy", Outcome.NOT_READY, "the mirror has no CA", "run mirror tls init on the mirror")
        return await self._through("proxy", f"https://{seen.registry}", seen, self._through_proxy(seen))

    def _through_proxy(self, seen: Seen) -> str:
        return str(self._url.origin()) if self._url.scheme == "http" else seen.proxy

    async def _dns(self, seen: Seen) -> Check:
        found = await self._ground.resolve(seen.registry)
        if not found:
            return Check("dns", Outcome.NOT_READY, f"{seen.registry} does not resolve here", _REDIRECT)
        own = set(await self._ground.resolve(self._url.host or ""))
        led = [one for one in found if one in own or not _is_global(one)]
        if not led:  # nothing is sent to the real registry
            said = f"{seen.registry} resolves to {', '.join(found[:3])} here, not to the mirror"
            return Check("dns", Outcome.NOT_READY, said, _REDIRECT)
        names = FixedResolver(seen.registry, led)
        by_tls = await self._through("dns", f"https://{seen.registry}:{self._ground.https_port}", seen, names=names)
        if by_tls.outcome is Outcome.OK:
            return Check("dns", Outcome.OK, f"{seen.registry} leads to the mirror by HTTPS")
        plain = await self._through("dns", f"http://{seen.registry}:{self._ground.http_port}", seen, names=names)
        if plain.outcome is Outcome.OK:
            said = f"{seen.registry} leads to the mirror by plain HTTP (ollama pull --insecure); HTTPS: {by_tls.said}"
            return Check("dns", Outcome.OK, said, by_tls.advice)
        if not isinstance(by_tls, _Silence):
            return by_tls
        lacks = seen.lacks.get("dns")
        if lacks and isinstance(plain, _Silence):
            return Check("dns", Outcome.NOT_READY, f"{seen.registry} resolves to {', '.join(led[:3])}. {lacks}")
        return plain

    async def _through(
        self, way: str, base: str, seen: Seen, proxy: str | None = None, names: "FixedResolver | None" = None
    ) -> Check:
        """Ask the registry's name for the mirror's id; say what came of it."""
        try:
            where = URL(base).joinpath("mirror", "setup").with_query(format="json")
            async with (
                self._session(names) as session,
                session.get(where, proxy=proxy, timeout=_WITHIN, allow_redirects=False) as reply,
            ):
                status, body = reply.status, await _body(reply)
        except aiohttp.ClientHttpProxyError as error:
            said = f"CONNECT to {seen.registry} was refused ({error.status})"
            advice = "mirror tls show on the mirror says what its CA covers; mirror tls renew adds what is missing"
            return Check(way, Outcome.FAILED, said, advice)
        except aiohttp.ClientConnectorCertificateError as error:
            return _untrusted(way, error.certificate_error)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return _Silence(way, Outcome.FAILED, f"no answer for {base}: {_reason(error)}", _LOOK)
        try:
            other = Seen.read(json.loads(body)).id if status == 200 else None
        except ValueError:
            other = None
        if other == seen.id:
            return Check(way, Outcome.OK, f"{base} leads to the mirror")
        what = "another mirror" if other else f"something that is no mirror (status {status})"
        return Check(way, Outcome.FAILED, f"{base} leads to {what}", f"check what {self._url} and the name lead to")

    async def _blobs(self) -> Check:
        try:
            async with AdminClient(str(self._url), self._api_key) as client:
                found = await sample(client)
        except (ServerError, KeyError, TypeError, ValueError) as error:
            said = f"the mirror does not say which models it has: {error}"
            return Check("blobs", Outcome.NOT_READY, said, "name its key in security.api_key")
        if found is None:
            said = "the mirror has no model yet to try with"
            return Check("blobs", Outcome.NOT_READY, said, "pull one, and ask again")
        async with self._session(with_key=True) as session:
            bad = [one.said for one in await probe(session, found) if not one.good]
        if bad:
            return Check("blobs", Outcome.FAILED, "; ".join(bad), "look for a proxy between here and the mirror")
        return Check("blobs", Outcome.OK, "a blob comes as Ollama wants it: length, Location, ranges")

    def _session(self, names: "FixedResolver | None" = None, *, with_key: bool = False) -> aiohttp.ClientSession:
        """Open a session; the key is for the mirror by its own URL, and for nobody that a name leads to."""
        headers = bearer(self._api_key) if with_key else {}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._ground.tls, resolver=names), headers=headers
        )


_LOOK = "check that the mirror runs, and that nothing between here and there blocks its port"
_KEY = "mirror key add NAME --ollama id_ed25519.pub on the mirror lets this machine's Ollama in"
_REDIRECT = "let the resolver, or /etc/hosts, lead it to the mirror"


def _folder(seen: Seen) -> Check:
    if lacks := seen.lacks["folder"]:
        return Check("folder", Outcome.NOT_READY, lacks)
    return Check("folder", Outcome.OK, "the mirror's folder may be an Ollama's here", "mirror doctor looks at both")


def _untrusted(way: str, error: Exception) -> Check:
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    if code in _UNTRUSTED:
        advice = (
            "mirror tls trust on the mirror says how; with --ca FILE this command tries one that is not trusted yet"
        )
        return Check(way, Outcome.FAILED, "the mirror's CA is not trusted on this machine", advice)
    reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
    advice = (
        "run mirror tls renew on the mirror" if code == _NOT_PERMITTED else "look at the clock and at mirror tls show"
    )
    return Check(way, Outcome.FAILED, f"the mirror's certificate is refused: {reason}", advice)


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """Read a body as far as any of ours goes."""
    body = bytearray()
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > _MOST:
            break
    return bytes(body)


def _is_global(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_global
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing in {_WITHIN.total:.0f} seconds"
    return str(error) or type(error).__name__
