"""Programs that stand in for the outside, each speaking the real protocol over 127.0.0.1.

Here is what they have in common: the faults they take, the log of what was asked of them, Ollama's signature.
"""

import asyncio
import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from enum import StrEnum
from typing import Self

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from mirror.values import ByteRange, Digest

EMPTY_BODY = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
"""The end of what the signature of a token request signs (ollama auth/auth.go)."""

_LOGGED = ("Host", "User-Agent", "Accept", "Accept-Encoding", "Authorization", "If-None-Match", "If-Range", "Via")


class Wrong(StrEnum):
    """What can go wrong; ``value`` and ``text`` are those of the Fault."""

    SLOW = "slow"
    """At most ``value`` bytes per second in each answer."""
    STALL = "stall"
    """Nothing more after ``value`` bytes of the answer, until released."""
    CUT = "cut"
    """A connection reset after ``value`` bytes of the answer."""
    CORRUPT = "corrupt"
    """The byte at offset ``value`` of the blob is inverted; only answers with this byte count as a time."""
    LENGTH = "length"
    """Content-Length is off by ``value``; too few bytes follow, or the connection ends early."""
    RANGE = "range"
    """Content-Range is off by ``value``; the bytes are those asked for."""
    WHOLE = "whole"
    """The Range header is ignored: 200 and everything."""
    STATUS = "status"
    """The answer is status ``value`` with body ``text``."""
    BUSY = "busy"
    """429, with ``text`` as Retry-After."""
    CHALLENGE = "challenge"
    """401 unless a token is sent; ``text`` says who gets one: ``anonymous`` or ``signed``."""
    TYPE = "type"
    """The Content-Type is ``text``."""
    DIGEST = "digest"
    """The digest headers name another digest."""
    REDIRECT = "redirect"
    """307 to ``text``."""
    DELAY = "delay"
    """``value`` seconds pass before the headers."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong ``times`` times, None being always.

    ``to`` says with which requests: ``manifest``, ``blob`` (answers with a blob's bytes, wherever they are had),
    ``redirect`` (the requests for a blob that are answered with a signed address), ``token``, ``head`` (HEAD of
    anything, to which the others do not apply), ``any`` (all but token and head) or a digest (as ``blob``, but only
    that one). Several may hold at once.
    """

    wrong: Wrong
    to: str | Digest = "blob"
    _: KW_ONLY
    times: int | None = None
    value: float = 0
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``POST /faults`` takes: an object with these fields."""
        view = json.loads(text)
        return cls(**{**view, "wrong": Wrong(view["wrong"])})


class Faults:
    """The faults that are set, and how often each will still happen."""

    def __init__(self) -> None:
        self._left: list[tuple[Fault, int | None]] = []

    def add(self, fault: Fault) -> None:
        """Set a fault, beside those that are."""
        self._left.append((fault, fault.times))

    def clear(self) -> None:
        """End all faults; what is being answered goes on as it began."""
        self._left.clear()

    def take(
        self, wrong: Wrong, kind: str, digest: str = "", applies: Callable[[Fault], bool] = lambda _: True
    ) -> Fault | None:
        """Use up one time of the first such fault that is set for a request of this kind, and return it."""
        meant = {kind} if kind in ("head", "token") else {kind, "any"}
        if kind == "blob":
            meant.add(digest)
        for at, (fault, left) in enumerate(self._left):
            if fault.wrong is wrong and str(fault.to) in meant and left != 0 and applies(fault):
                self._left[at] = (fault, None if left is None else left - 1)
                return fault
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request as logged: on arrival without ``status``, replaced when it is over. ``sent`` counts body bytes.

    ``kind`` is what a Fault's ``to`` calls it.
    """

    method: str
    path: str
    kind: str
    headers: Mapping[str, str]
    range: str | None
    status: int | None = None
    sent: int = 0


class Log:
    """The requests in the order of their arrival, and a way to wait for what happens next.

    Of more than twice ``most`` the older half is forgotten, so that a fake can stand for hours.
    """

    def __init__(self, most: int | None = None) -> None:
        self.entries: list[Entry] = []
        self._most = most
        self._forgotten = 0
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """How many there were."""
        return self._forgotten + len(self.entries)

    def begin(self, request: web.Request, kind: str) -> int:
        """Write down a request; return its place."""
        headers = {name: request.headers[name] for name in _LOGGED if name in request.headers}
        asked = request.headers.get("Range")
        self.entries.append(Entry(method=request.method, path=request.path_qs, kind=kind, headers=headers, range=asked))
        if self._most is not None and len(self.entries) > 2 * self._most:
            self._forgotten += self._most
            del self.entries[: self._most]
        self.tell()
        return self.count - 1

    def end(self, place: int, *, status: int, sent: int) -> None:
        """Write down how a request ended."""
        at = place - self._forgotten
        if at >= 0:
            self.entries[at] = replace(self.entries[at], status=status, sent=sent)
        self.tell()

    def tell(self) -> None:
        """Have every waiting condition looked at again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait until ``condition`` holds. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._changed.wait()


def signature_problem(request: web.Request) -> str | None:
    """Return why a token request is not signed as Ollama signs its own, None if it is; time is not looked at."""
    key, _, signature = request.headers.get("Authorization", "").partition(":")
    url = f"{request.url.origin()}{request.raw_path}"
    try:
        public = load_ssh_public_key(f"ssh-ed25519 {key}".encode())
        if not isinstance(public, Ed25519PublicKey):
            return "not an ed25519 key"
        public.verify(b64decode(signature), f"GET,{url},{EMPTY_BODY}".encode())
    except (ValueError, InvalidSignature) as error:
        return f"not signed for {url}: {error!r}"
    return None


@dataclass(slots=True)
class Plan:
    """What goes wrong with one answer's bytes; places are offsets in the blob, each of which comes up once."""

    here: ByteRange
    rate: float | None
    stall_at: int | None
    cut_at: int | None

    @classmethod
    def make(cls, faults: Faults, digest: str, here: ByteRange) -> Self:
        """Take the faults of an answer with these bytes; an answer that ends earlier is not stalled or cut."""

        def place(wrong: Wrong) -> int | None:
            fault = faults.take(wrong, "blob", digest, lambda fault: fault.value < len(here))
            return here.start + int(fault.value) if fault else None

        slow = faults.take(Wrong.SLOW, "blob", digest)
        return cls(here, slow.value if slow else None, place(Wrong.STALL), place(Wrong.CUT))

    def stop(self, at: int, most: int, held: int | None) -> int:
        """Return up to where bytes may go out at once: ``most`` of them, and not past where something happens."""
        if self.rate is not None:
            most = max(1, min(most, int(self.rate / 20)))
        places = (self.stall_at, self.cut_at, held)
        return min(self.here.stop, at + most, *(place for place in places if place is not None and place > at))
