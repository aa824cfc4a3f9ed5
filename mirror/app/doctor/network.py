"""The registries above us: what their names resolve to, whether they answer, and their clock."""

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from yarl import URL

from mirror.app.doctor.finding import Finding, Verdict
from mirror.config import Settings
from mirror.config.kinds import split_address
from mirror.errors import UpstreamError
from mirror.events import Events
from mirror.listen.names import OLLAMAS, is_loopback, own_addresses, plain_host
from mirror.upstream import Upstream, Upstreams
from mirror.upstream.addresses import addresses_of
from mirror.upstream.connections import proxy_for
from mirror.values import ModelName

_CLOCK_WARNING_S, _CLOCK_PROBLEM_S = 60.0, 3600.0


async def upstreams(settings: Settings, state: Path, serves_at: str | None) -> AsyncIterator[Finding]:
    """Ask every upstream once. ``serves_at``: the URL of the mirror that runs with these settings, if one does.

    Raises SettingsError where the further upstreams cannot be used as they are set.
    """
    key_file = settings.upstream.key_file or state / "id_ed25519"
    opened = Upstreams(settings.upstream, settings.upstreams, settings.hf_token, key_file, Events())
    own = own_addresses()
    ports = set(_ports(settings, serves_at))
    try:
        async for finding in _one(opened.main, own, ports, further=None):
            yield finding
        for one in settings.upstreams:
            upstream = opened.of(ModelName(one.hosts[0], "library", "x", "latest"))
            async for finding in _one(upstream, own, ports, further=one.name):
                yield finding
    finally:
        await opened.close()


async def _one(upstream: Upstream, own: Iterable[str], ports: set[int], further: str | None) -> AsyncIterator[Finding]:
    url = str(upstream.settings.url)
    finding = await dns(url, own, ports)
    yield finding
    if finding.verdict is Verdict.PROBLEM:
        return  # to ask would be to ask ourselves
    try:
        reply = await upstream.greeting()
    except UpstreamError as error:
        advice = "check the network, DNS and proxy of this machine, or set offline; what is stored is served meanwhile"
        if further is not None:
            advice = f"check the network, or take {further} out of upstreams; its models are served as far as stored"
        verdict = Verdict.PROBLEM if further is None else Verdict.WARNING
        yield Finding("upstream", verdict, f"{url} does not answer: {error}", advice)
        return
    verdict = Verdict.OK if reply.status < 500 else Verdict.WARNING
    yield Finding("upstream", verdict, f"{url} answers ({reply.status})")
    if further is None:
        with suppress(ValueError):
            yield _clock(parsedate_to_datetime(reply.headers.get("Date", "")).timestamp() - time.time())


async def dns(url: str, own: Iterable[str], ports: set[int]) -> Finding:
    """Say what the host of an upstream resolves to here; that it is this mirror, at one of its ``ports``, is a loop.

    The registry that every Ollama asks is no other program of this machine's, whatever the port.
    """
    parts = urlsplit(url)
    host = plain_host(parts.hostname or "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if proxy_for(URL(url)) is not None:
        return Finding("dns", Verdict.OK, f"{host} is asked by way of a proxy, which resolves it")
    try:
        found = list(dict.fromkeys(map(plain_host, await addresses_of(host, port))))
    except UpstreamError:
        return Finding("dns", Verdict.WARNING, f"{host} does not resolve here", "check the resolver of this machine")
    return judged(host, port, found, own, ports)


def judged(host: str, port: int, found: list[str], own: Iterable[str], ports: set[int]) -> Finding:
    """Say of an upstream's addresses whether they lead away from this mirror."""
    said = f"{host} resolves to {', '.join(found)}" if found != [host] else f"{host} is an address"
    if not (any(one in own or is_loopback(one) for one in found) and (port in ports or host == OLLAMAS)):
        return Finding("dns", Verdict.OK, said)
    advice = (
        "give the mirror another resolver, or this machine's /etc/hosts the registry's real address; "
        "a registry by plain HTTP can be named by its address in upstream.url"
    )
    return Finding("dns", Verdict.PROBLEM, f"{said}: the mirror would ask itself", advice)


def _ports(settings: Settings, serves_at: str | None) -> Iterator[int]:
    yield settings.server.port
    for one in settings.listen.addresses:
        yield split_address(one)[1]
    if serves_at is not None:
        yield urlsplit(serves_at).port or 0


def _clock(ahead_s: float) -> Finding:
    off = abs(ahead_s)
    if off < _CLOCK_WARNING_S:
        return Finding("clock", Verdict.OK, f"within {off:.0f} seconds of the upstream's")
    verdict = Verdict.WARNING if off < _CLOCK_PROBLEM_S else Verdict.PROBLEM
    said = f"{off:.0f} seconds {'behind' if ahead_s > 0 else 'ahead of'} the upstream's"
    return Finding("clock", verdict, said, "set it (timedatectl set-ntp true): ages of models are told by it")
