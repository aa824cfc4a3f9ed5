"""What the mirror seals with a key of its own, and knows again: tokens, tickets, and words of this machine's commands.

Each is text that anybody may carry and nobody else can make: HMAC-SHA256 (RFC 2104) over its parts and the word of its
kind, so that none passes for another. A seal says until when; whose key it names must be live still, which the caller
of this module checks.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mirror.access.files import content, make_once
from mirror.access.scopes import Scope
from mirror.errors import BadKey
from mirror.values import Digest

LOCAL = "local"
"""Key id of the commands on the mirror's own machine."""
_BYTES = 32
_LARGEST = 4096
_TICKET_BYTES = 16
_LOCAL_S = 60.0
_DAY_S = 86_400
_TOKEN = "mt_"  # noqa: S105  # how a token begins, not one
_TICKET = re.compile(r"([A-Za-z0-9_~-]{1,64})\.([0-9a-f]{1,12})\.([A-Za-z0-9_-]{22})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says: for whom it was made, and what it is good for at most."""

    key_id: str
    user: str
    scopes: tuple[Scope, ...]


class Seal:
    """Seals and opens. Safe from every thread. Who changes the key in ``<state>/seal.key`` ends all that it sealed."""

    def __init__(self, key: bytes, ticket_ttl_s: float = 0.0, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._ticket_ttl_s = ticket_ttl_s
        self._now = now

    @classmethod
    def opened(cls, state: Path, ticket_ttl_s: float, now: Callable[[], float] = time.time) -> Self:
        """Take the key of the state folder; make it where there is none. Raises BadKey."""
        path = state / "seal.key"
        try:
            if not path.exists():
                make_once(path, secrets.token_bytes(_BYTES))
            key = content(path, _LARGEST)
        except OSError as error:
            raise BadKey(f"cannot read or make {path}: {error.strerror}; give it to the mirror's user") from error
        if len(key) != _BYTES:
            raise BadKey(f"{path} is no key of {_BYTES} bytes; remove it, and a new one is made at the next start")
        return cls(key, ticket_ttl_s, now)

    @classmethod
    def of_commands(cls, state: Path) -> Self | None:
        """Take the key of the state folder as it is; None for who may not read it, or where there is none."""
        try:
            key = content(state / "seal.key", _LARGEST)
        except OSError:
            return None
        return cls(key) if len(key) == _BYTES else None

    def instance(self) -> str:
        """Return a few letters that are this mirror's in each of its lives, and no secret."""
        return self._mac(b"instance", b"").hex()[:8]

    def token(self, key_id: str, user: str, scopes: Iterable[Scope], ttl_s: float) -> str:
        """Return a token for ``Authorization: Bearer``, good for ``ttl_s``."""
        said = json.dumps([key_id, user, " ".join(scopes), int(self._now() + ttl_s)]).encode()
        return f"{_TOKEN}{_text(said)}.{_text(self._mac(b'token', said))}"

    def local_token(self) -> str:
        """Return a token by which a command on the mirror's own machine may do everything, for a minute."""
        return self.token(LOCAL, LOCAL, [Scope.ADMIN], _LOCAL_S)

    @staticmethod
    def is_token(text: str) -> bool:
        """Say whether a text looks like a token, whoever made it."""
        return text.startswith(_TOKEN)

    def open_token(self, text: str) -> Token | None:
        """Return what a token says; None for what is none of ours or too late."""
        body, _, mac = text.removeprefix(_TOKEN).partition(".")
        if not self.is_token(text):
            return None
        try:
            said = base64.urlsafe_b64decode(_padded(body))
        except ValueError:
            return None
        if _text(said) != body:  # base64 has several spellings of some bytes
            return None
        if not hmac.compare_digest(_text(self._mac(b"token", said)).encode(), mac.encode(errors="surrogateescape")):
            return None
        key_id, user, scopes, until = json.loads(said)
        if until < self._now():
            return None
        return Token(key_id=key_id, user=user, scopes=tuple(map(Scope, scopes.split())))

    def ticket(self, digest: Digest, key_id: str) -> str:
        """Return text for ``?ticket=`` by which whoever got it may read the blob ``digest`` for a time, and no other.

        It is for the ranges of a pull, which Ollama asks for without its token (docs/protocol.md §8).
        """
        until = f"{int(self._now() + self._ticket_ttl_s):x}"
        return f"{key_id}.{until}.{self._of_ticket(digest, key_id, until)}"

    def open_ticket(self, text: str, digest: Digest) -> str | None:
        """Return the id of the key that a ticket for this blob was made for; None for another's, or when it is late."""
        match = _TICKET.fullmatch(text)
        if match is None:
            return None
        key_id, until, mac = match.groups()
        if not hmac.compare_digest(self._of_ticket(digest, key_id, until), mac):
            return None
        return key_id if int(until, 16) >= self._now() else None

    def mark(self, text: str) -> str:
        """Return a few letters by which ``text`` is known again and from which nothing of it can be told."""
        return self._mac(b"mark", text.encode(errors="surrogateescape")).hex()[:8]

    def form(self, who: str) -> str:
        """Return what our pages put into their forms, so that no page of another site can send one for ``who``.

        It is good until the end of the next day, by UTC.
        """
        return self._of_form(who, int(self._now() // _DAY_S))

    def is_form(self, who: str, text: str) -> bool:
        """Say whether ``text`` is what ``form`` returned for them lately."""
        today = int(self._now() // _DAY_S)
        given = text.encode("utf-8", "surrogateescape")
        return any(hmac.compare_digest(self._of_form(who, day).encode(), given) for day in (today, today - 1))

    def _of_form(self, who: str, day: int) -> str:
        return _text(self._mac(b"form", f"{day} {who}".encode("utf-8", "surrogateescape")))

    def _of_ticket(self, digest: Digest, key_id: str, until: str) -> str:
        return _text(self._mac(b"ticket", f"{digest} {key_id} {until}".encode())[:_TICKET_BYTES])

    def _mac(self, kind: bytes, said: bytes) -> bytes:
        return hmac.new(self._key, kind + b"\0" + said, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _padded(text: str) -> bytes:
    return text.encode("ascii", "replace") + b"=" * (-len(text) % 4)
