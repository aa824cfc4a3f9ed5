"""``GET /mirror/setup``: how an Ollama comes to use this mirror, for the one who asks."""

import asyncio
import re
import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import web

from mirror import __version__
from mirror.config import FurtherUpstream, Settings
from mirror.config.kinds import split_address
from mirror.listen import Authority, Certificates, Names
from mirror.listen.names import is_loopback, own_addresses, plain_host
from mirror.web.pages.shown import Shown
from mirror.web.setup import KEYS, Facts, Place, ways
from mirror.web.setup_text import ca_text, notes, setup_text, setup_view
from mirror.web.steps_to import pairs

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::(\d{1,5}))?\Z", re.ASCII)
_MIRRORED = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z][A-Za-z0-9-]*\Z", re.ASCII)
_FORMS = ("html", "json", "text")
_ELSEWHERE = 3
_HTTPS = 443


class SetupFace:
    """Says the ways in. A Host header stands in no line unless it is a name of the mirror's own, or an address.

    ``id`` is chosen at the start, so that who comes by another way can tell that it is the same mirror.
    """

    def __init__(self, settings: Settings, names: Names, certificates: Certificates, shown: Shown) -> None:
        self.id = secrets.token_hex(8)
        self._settings = settings
        self._names = names
        self._shown = shown
        self._certificates = certificates

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return its one route."""
        return [web.get("/mirror/setup", self.setup)]

    async def setup(self, request: web.Request) -> web.StreamResponse:
        """Answer by ``?format=`` or Accept: a page for browsers, JSON for programs, text for terminals."""
        form, key = self._form(request), request.query.get("way")
        if form not in _FORMS or (key is not None and key not in KEYS):
            said = f"format must be one of {', '.join(_FORMS)}, and way one of {', '.join(KEYS)}"
            raise web.HTTPBadRequest(text=f"{said}\n")
        facts = await self._facts(request)
        shown = [one for one in ways(facts) if key in (None, one.key)]
        response: web.StreamResponse
        if form == "json":
            response = web.json_response(setup_view(facts, shown))
        elif form == "html":
            context = {"facts": facts, "ways": shown, "notes": list(notes(facts)), "ca": ca_text(facts)}
            context["fingerprint"] = pairs(facts.fingerprint) if facts.fingerprint else None
            response = self._shown.page(request, "setup.html", context)
        else:
            response = web.Response(text=setup_text(facts, shown))
        # A shared cache would hand the lines of one caller to another.
        response.headers.update({"Cache-Control": "no-store", "Vary": "Accept, Host"})
        return response

    def _form(self, request: web.Request) -> str:
        accept = request.headers.get("Accept", "")
        if said := request.query.get("format"):
            return said
        if "text/html" in accept and self._settings.features.enable_web_ui:
            return "html"
        return "json" if "application/json" in accept else "text"

    async def _facts(self, request: web.Request) -> Facts:
        settings, authority = self._settings, await self._certificates.authority()
        here = _socket(request, "sockname")
        asked = self._place(request, here)
        public = urlsplit(settings.server.public_url or asked.url)
        secure = public.scheme == "https"
        place = asked if settings.server.public_url is None else _public(settings, asked)
        # By way of a mirrored host's name nobody is told an address that is only good on this machine.
        local = settings.server.public_url is None and (place.host == "localhost" or is_loopback(place.host))
        hosts = _hosts(settings, self._names)
        return Facts(
            id=self.id,
            version=__version__,
            url=f"https://{Place(place.host, public.port or _HTTPS).shown(_HTTPS)}" if secure else place.url,
            proxy=place,
            secure=secure,
            prefix=public.path not in ("", "/"),
            ports=frozenset(_ports(settings)),
            main=hosts[0],
            hosts=hosts,
            further=tuple(one for one in settings.upstreams if _usable(one)),
            fingerprint=authority.fingerprint if authority else None,
            uncovered=_uncovered(authority, hosts),
            folder=settings.cache.directory.absolute() if self._shares(request, here) else None,
            elsewhere=await _elsewhere(settings, place) if local else (),
        )

    def _place(self, request: web.Request, here: tuple[str, int]) -> Place:
        """Where the caller reached us, by its Host if that is safe to repeat, else by the address it came in at."""
        match = _AUTHORITY.match(request.host)
        if match is not None:
            host = plain_host(match[1] or match[2])
            port = int(match[3]) if match[3] else 443 if request.secure else 80
            if 0 < port < 65536 and (self._names.owns(host, here[0]) or _is_address(host)):
                return Place(host, port)
        return Place(*here)

    def _shares(self, request: web.Request, here: tuple[str, int]) -> bool:
        there = _socket(request, "peername")[0]
        return self._settings.cache.shared_with_ollama and (is_loopback(there) or there == here[0])


def _socket(request: web.Request, end: str) -> tuple[str, int]:
    found = request.transport.get_extra_info(end) if request.transport is not None else None
    if not found:
        raise web.HTTPBadRequest(text="the connection has gone\n")
    return plain_host(str(found[0])), int(found[1])


def _public(settings: Settings, asked: Place) -> Place:
    """The mirror's public name, with the port it takes plain HTTP at: behind https another program may answer."""
    public = urlsplit(settings.server.public_url or asked.url)
    try:
        port = (public.port or 80) if public.scheme == "http" else next(iter(_ports(settings)), asked.port)
        return Place(plain_host(public.hostname or ""), port or asked.port)
    except ValueError:
        return asked


def _ports(settings: Settings) -> list[int]:
    """The ports of the settings; those that the system chooses are left out."""
    said = [split_address(one)[1] for one in settings.listen.addresses] or [settings.server.port]
    return [port for port in said if port]


def _hosts(settings: Settings, names: Names) -> tuple[str, ...]:
    """The host of plain names, then the others stood in for; addresses and odd names are nobody's way in."""
    main = plain_host(settings.upstream.host.rpartition(":")[0] or settings.upstream.host)
    others = sorted(one for one in names.mirrored if one != main and _MIRRORED.match(one))
    return (main, *others)


def _usable(one: FurtherUpstream) -> bool:
    return _MIRRORED.match(one.hosts[0]) is not None


def _uncovered(authority: Authority | None, hosts: Iterable[str]) -> tuple[str, ...]:
    return tuple(one for one in hosts if authority is not None and not authority.covers(one))


def _is_address(host: str) -> bool:
    return ":" in host or re.fullmatch(r"\d+\.\d+\.\d+\.\d+", host, re.ASCII) is not None


async def _elsewhere(settings: Settings, place: Place) -> tuple[str, ...]:
    """URLs for other machines, where the mirror listens on every address."""
    hosts = [split_address(one)[0] for one in settings.listen.addresses] or [settings.server.host]
    if not {"0.0.0.0", "::"} & set(hosts):  # noqa: S104  # compared only
        return ()
    found = await asyncio.to_thread(own_addresses)
    return tuple(Place(one, place.port).url for one in sorted(found) if not is_loopback(one))[:_ELSEWHERE]
