"""The keys as the running mirror looks at them: which are live, what needs one, and whose a secret is."""

import asyncio
import hmac
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from mirror.access import files
from mirror.access.key import Key, Kind, proof_of
from mirror.access.keyring import Keyring
from mirror.access.scopes import Scope
from mirror.access.seals import LOCAL, Seal
from mirror.config import SecuritySettings
from mirror.errors import BadKey
from mirror.values import Digest

log = structlog.get_logger(__name__)

API_KEY = "api_key"
"""The user whose key is ``security.api_key``."""
_LOOK_S = 1.0
_BY_REQUEST = (Scope.PULL, Scope.API)
_BORN = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Grant:
    """Whose a credential is, and what it is good for."""

    key_id: str
    user: str
    scopes: frozenset[Scope]


def guarded(entries: Iterable[Key], security: SecuritySettings) -> frozenset[Scope]:
    """Return the scopes that need a key from everywhere, when these keys are in the file (revoked ones among them).

    ``admin`` alone does not close pulling or the API; ``security.api_key`` closes the API, not pulling, for no Ollama
    can show it.
    """
    if security.anonymous == ("none",):
        return frozenset(Scope)
    listed = {scope for one in entries for scope in one.scopes}
    if security.api_key is not None:
        listed |= {Scope.API, Scope.PUSH, Scope.ADMIN}
    closed = {one for one in (Scope.PUSH, Scope.ADMIN) if one.within(listed)}
    if security.anonymous == ("auto",):
        return frozenset(closed | (listed & {*_BY_REQUEST}))
    return frozenset(closed | {one for one in _BY_REQUEST if one.value not in security.anonymous})


class Keys:
    """What the gate asks at every request. To be used on the loop; memory only, but for ``refresh``.

    A file of keys that cannot be read, or that is gone, closes all that any key might close: nothing in it is believed
    until it can be read again.
    """

    def __init__(
        self,
        keyring: Keyring,
        seal: Seal,
        security: SecuritySettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file. Raises BadKey where it cannot be used."""
        self.keyring = keyring
        self.seal = seal
        self.security = security
        self._now = now
        self._clock = clock
        self._api = _api_key(security, seal)
        self.broken: str | None = None
        self._seen = files.stamp(keyring.path)
        self._looked_at = clock()
        self._looks = self._last_look = 0
        self._take(keyring.read())

    @property
    def due(self) -> bool:
        """Whether it is time to look at the file again, which ``refresh`` does."""
        return self._clock() - self._looked_at >= _LOOK_S

    async def refresh(self) -> None:
        """Read the file again if it is another than before; a problem with it is said in the log, once."""
        self._looked_at = self._clock()
        self._looks += 1
        mine = self._looks
        try:
            found, entries = await asyncio.to_thread(self._look, self._seen if self.broken is None else None)
        except BadKey as error:
            if mine > self._last_look:
                self._last_look = mine
                self._close(str(error))
            return
        # No await from here on: a request sees the old keys or the new ones. And of two looks the later one counts.
        if mine < self._last_look or entries is None:
            return
        if self.broken is not None:
            log.info("keys can be read again")
        self._last_look, self.broken, self._seen = mine, None, found
        self._take(entries)

    def _look(self, seen: files.Stamp | None) -> tuple[files.Stamp | None, tuple[Key, ...] | None]:
        """Return the stamp of the file, and the keys in it where it is another than ``seen``. Blocks; raises BadKey."""
        found = files.stamp(self.keyring.path)
        if found is None and self._seen is not None:
            raise BadKey(f"the keys in {self.keyring.path} are gone or cannot be looked at; restore the file")
        return found, self.keyring.read() if found != seen or found is None else None

    @property
    def in_use(self) -> bool:
        """Whether there are keys at all, or may be: then users are told apart by them."""
        return bool(self._by_id) or self.broken is not None

    def guards(self, scope: Scope) -> bool:
        """Say whether ``scope`` needs a key from everywhere."""
        return scope in self._guarded

    def live(self, key_id: str) -> Key | None:
        """Return the key with this id if it is good now."""
        found = self._by_id.get(key_id)
        return found if found is not None and found.live(self._now()) else None

    def of_secret(self, secret: str) -> Key | None:
        """Return the live key whose secret this is; never one of an Ollama."""
        proof = proof_of(secret)
        found = self._by_proof.get(proof)
        if found is None or found.kind is not Kind.KEY or not hmac.compare_digest(found.proof, proof):
            return None
        return found if found.live(self._now()) else None

    def of_ollama(self, proof: str) -> Key | None:
        """Return the live key of an Ollama with this public key, which proves nothing until a signature does."""
        found = self._by_proof.get(proof)
        return found if found is not None and found.kind is Kind.OLLAMA and found.live(self._now()) else None

    def grant(self, text: str) -> Grant | None:
        """Return what a key's secret or a token is good for; None for what is neither, or not any more."""
        if (key := self.of_secret(text)) is not None:
            return Grant(key.id, key.user, frozenset(key.scopes))
        token = self.seal.open_token(text)
        if token is None:
            return None
        if token.key_id == LOCAL:
            return Grant(LOCAL, token.user, frozenset(token.scopes))
        key = self.live(token.key_id)
        return Grant(key.id, key.user, _both(token.scopes, key.scopes)) if key is not None else None

    def grant_of_ticket(self, text: str, digest: Digest) -> Grant | None:
        """Return what a ticket for the blob ``digest`` is good for: reading it, while its key lives and may pull."""
        key_id = self.seal.open_ticket(text, digest)
        key = self.live(key_id) if key_id is not None else None
        if key is None or not Scope.PULL.within(key.scopes):
            return None
        return Grant(key.id, key.user, frozenset([Scope.PULL]))

    @property
    def has_guessable(self) -> bool:
        """Whether there is a key whose secret people chose."""
        return self._api is not None

    def is_guessable(self, grant: Grant) -> bool:
        """Whether people chose the secret: then tries must be bounded before it is looked at."""
        return self._api is not None and grant.key_id == self._api.id

    def _take(self, entries: tuple[Key, ...]) -> None:
        self._guarded = guarded(entries, self.security)
        every = (*entries, *([self._api] if self._api is not None else ()))
        now = self._now()
        self._by_id = {one.id: one for one in every}
        # A key that was revoked may have been made once more: the live one comes last.
        self._by_proof = {one.proof: one for one in sorted(every, key=lambda one: one.live(now))}

    def _close(self, problem: str) -> None:
        if self.broken != problem:
            log.error("keys cannot be read: what needs a key is refused", problem=problem)
        self.broken = problem
        self._by_id, self._by_proof = {}, {}
        if self._api is not None:  # it is in the settings
            self._by_id, self._by_proof = {self._api.id: self._api}, {self._api.proof: self._api}
        open_anyway = set(self.security.anonymous) & set(_BY_REQUEST)
        self._guarded = frozenset(set(Scope) - {Scope(one) for one in open_anyway})


def _api_key(security: SecuritySettings, seal: Seal) -> Key | None:
    if security.api_key is None:
        return None
    secret = security.api_key.get_secret_value()
    return Key(
        id=f"{API_KEY}~{seal.mark(secret)}",  # with another key in the settings, what was sealed for this one ends
        name=API_KEY,
        kind=Kind.KEY,
        proof=proof_of(secret),
        scopes=(Scope.PULL, Scope.PUSH, Scope.API, Scope.ADMIN),
        user=API_KEY,
        created=_BORN,
    )


def _both(some: Collection[Scope], others: Collection[Scope]) -> frozenset[Scope]:
    return frozenset(one for one in Scope if one.within(some) and one.within(others))
