"""One key: who shows it, what it is good for, and how it is known again."""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import AwareDatetime, ConfigDict, with_config

from mirror.access.scopes import Scope
from mirror.errors import BadKey

ANONYMOUS = "anonymous"
"""The user that who shows no key is."""
_SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 @._-]{0,79}", re.ASCII)
_WIRE = b"\0\0\0\x0bssh-ed25519\0\0\0 "
_WIRE_BYTES = len(_WIRE) + 32


class Kind(StrEnum):
    """A key of ours is a secret that is shown; one of Ollama's signs, and never leaves its machine."""

    KEY = "key"
    OLLAMA = "ollama"


@with_config(ConfigDict(extra="forbid", hide_input_in_errors=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry of the file of keys.

    ``proof`` is how it is known again: the sha256 of the secret in hexadecimal, or the public ed25519 key in base64, as
    ssh writes it (RFC 8709 §4). A secret has 256 bits of chance, so a plain hash is right: there is nothing that a slow
    one would make harder to guess. Instants are aware.
    """

    id: str
    name: str
    kind: Kind
    proof: str
    scopes: tuple[Scope, ...]
    user: str
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def live(self, now: datetime) -> bool:
        """Say whether it is good now."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def new_secret() -> str:
    """Make the secret of a key."""
    return "mk_" + base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()


def proof_of(secret: str) -> str:
    """Return what of a secret is written down."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def ollama_proof(text: str) -> str:
    """Return the public key that a line of ``id_ed25519.pub`` holds, or that key by itself. Raises BadKey."""
    fields = text.split()
    said = fields[1] if len(fields) > 1 and fields[0] == "ssh-ed25519" else fields[0] if len(fields) == 1 else ""
    try:
        wire = base64.b64decode(said, validate=True)
    except ValueError:
        wire = b""
    if not wire.startswith(_WIRE) or len(wire) != _WIRE_BYTES:
        raise BadKey("this is no public ed25519 key; give the file id_ed25519.pub of the Ollama, not id_ed25519")
    return base64.b64encode(wire).decode()


def raw_public(proof: str) -> bytes:
    """Return the 32 bytes of the public key that ``ollama_proof`` returned."""
    return base64.b64decode(proof)[len(_WIRE) :]


def checked_name(text: str, what: str) -> str:
    """Return the name of a key or a user. Raises BadKey."""
    if not _NAME.fullmatch(text) or text == ANONYMOUS:
        raise BadKey(
            f"{text[:80]!r} cannot be the {what}: take 1 to 80 letters, digits, spaces and @ . _ -, beginning with a "
            f"letter or digit, and not {ANONYMOUS}"
        )
    return text
