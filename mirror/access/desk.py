"""Keys made, listed and ended, as the admin API and the command say it: JSON objects in, JSON objects out."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from mirror.access.key import Key
from mirror.access.keyring import Keyring
from mirror.access.keys import guarded
from mirror.access.scopes import Scope
from mirror.config import SecuritySettings
from mirror.errors import BadKey

View = dict[str, Any]
DEFAULT_SCOPES = (Scope.PULL, Scope.API)
"""What a new key is good for unless said."""


class Desk:
    """One file of keys under these settings. Every method blocks, and raises BadKey and StoreUnusable."""

    def __init__(
        self,
        keyring: Keyring,
        security: SecuritySettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._keyring = keyring
        self._security = security
        self._now = now

    def keys(self) -> View:
        """Return every key, and what needs one."""
        entries = self._keyring.read()
        return {"keys": [self._view(one) for one in entries], "guarded": self._guarded(entries)}

    def add(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        user: str | None = None,
        lasts_s: float | None = None,
        ollama: str | None = None,
    ) -> View:
        """Make a key; ``secret`` is said this once, ``closes`` is what needed no key before."""
        before = self._guarded(self._keyring.read())
        wanted = [_scope(one) for one in scopes] or (DEFAULT_SCOPES if ollama is None else (Scope.PULL,))
        key, secret = self._keyring.add(name, wanted, user=user, lasts_s=lasts_s, ollama=ollama)
        after = self._guarded(self._keyring.read())
        closes = [one for one in after if one not in before]
        return {"key": self._view(key), "secret": secret, "closes": closes, "guarded": after}

    def revoke(self, name: str) -> View:
        """End a key; what it closed stays closed."""
        return {"key": self._view(self._keyring.revoke(name))}

    def forget(self, name: str, *, dry_run: bool) -> View:
        """Take a key out of the file, or only say which; ``opens`` is what then needs no key any more."""
        entries = self._keyring.read()
        found = self._keyring.find(name)
        rest = self._guarded([one for one in entries if one.id != found.id])
        if not dry_run:
            self._keyring.forget(found.id)
        opens = [one for one in self._guarded(entries) if one not in rest]
        return {"key": self._view(found), "opens": opens, "dry_run": dry_run}

    def _guarded(self, entries: Sequence[Key]) -> list[str]:
        found = guarded(entries, self._security)
        return [one.value for one in Scope if one in found]

    def _view(self, key: Key) -> View:
        now = self._now()
        return {
            "id": key.id,
            "name": key.name,
            "kind": key.kind.value,
            "user": key.user,
            "scopes": [one.value for one in key.scopes],
            "state": "live" if key.live(now) else "revoked" if key.revoked is not None else "expired",
            "created": _text(key.created),
            "expires": _text(key.expires),
            "revoked": _text(key.revoked),
        }


def _scope(text: str) -> Scope:
    try:
        return Scope(text)
    except ValueError:
        raise BadKey(f"{text[:80]!r} is no scope; there are {', '.join(Scope)}") from None


def _text(instant: datetime | None) -> str | None:
    return instant.isoformat(timespec="seconds") if instant is not None else None
