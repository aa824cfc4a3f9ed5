"""The token dance of registries, as an anonymous caller and with Ollama's signature (docs/protocol.md §3)."""

import base64
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from yarl import URL

from mirror.errors import DeniedByUpstream

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Challenge:
    """A ``WWW-Authenticate: Bearer`` header, taken apart."""

    realm: URL
    service: str
    scopes: tuple[str, ...]

    @classmethod
    def parse(cls, header: str) -> "Challenge | None":
        """Read the header; None where it asks for anything but a Bearer token of some web server."""
        scheme, _, rest = header.strip().partition(" ")
        found = dict(_PARAMETER.findall(rest))
        if scheme.lower() != "bearer" or not found.get("realm"):
            return None
        try:
            realm = URL(found["realm"])
            # yarl looks at host and port only when they are asked for.
            usable = realm.scheme in ("http", "https") and realm.host and realm.port
        except ValueError:
            return None
        return cls(realm, found.get("service", ""), tuple(found.get("scope", "").split())) if usable else None

    def allowed_for(self, upstream: URL, realms: frozenset[str]) -> None:
        """Raise DeniedByUpstream unless the realm is the upstream's own or a listed host, and as well encrypted.

        A registry that could name any realm could have our signature sent anywhere.
        """
        authority = self.realm.host_port_subcomponent
        known = self.realm.user is None and (
            authority == upstream.host_port_subcomponent or self.realm.host in realms or authority in realms
        )
        if not known or (upstream.scheme == "https" and self.realm.scheme != "https"):
            raise DeniedByUpstream(
                f"{upstream.authority} asks for a token of {self.realm.origin()}, which is not in upstream.realms"
            )


class Signer:
    """Signs token requests with the mirror's own ed25519 key, made on first use at ``path`` (mode 0600)."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._key: Ed25519PrivateKey | None = None

    def request(self, challenge: Challenge) -> tuple[URL, str]:
        """Return the address to ask for a token and the Authorization to send (ollama auth/auth.go, server/auth.go)."""
        from cryptography.hazmat.primitives import serialization  # only who signs pays for it

        query = [("nonce", secrets.token_urlsafe(16)), *(("scope", scope) for scope in challenge.scopes)]
        query += [("service", challenge.service), ("ts", str(int(self._now()))), *challenge.realm.query.items()]
        text = f"{challenge.realm.with_query(None)}?{urlencode(sorted(query))}"
        nothing = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
        key = self._load()
        signature = base64.b64encode(key.sign(f"GET,{text},{nothing}".encode())).decode()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return URL(text, encoded=True), f"{public.split()[1].decode()}:{signature}"

    def _load(self) -> "Ed25519PrivateKey":
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if self._key is None:
            try:
                if not self._path.exists():
                    self._make()
                key = serialization.load_ssh_private_key(self._path.read_bytes(), password=None)
            except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
                raise DeniedByUpstream(f"the mirror's key {self._path} cannot be used: {error}") from error
            if not isinstance(key, Ed25519PrivateKey):
                raise DeniedByUpstream(f"the mirror's key {self._path} is no ed25519 key")
            self._key = key
        return self._key

    def _make(self) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        # Whole or not at all: half a key would be refused for ever.
        new = self._path.with_name(self._path.name + ".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(private)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._path)
        self._path.with_name(self._path.name + ".pub").write_bytes(public + b"\n")


def anonymous_request(challenge: Challenge) -> URL:
    """Return the address to ask for a token as nobody in particular (the docker token protocol)."""
    query = [("service", challenge.service)] if challenge.service else []
    query += [("scope", scope) for scope in challenge.scopes]
    return challenge.realm.update_query(query)
