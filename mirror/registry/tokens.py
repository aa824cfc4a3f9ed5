"""``GET /v2/token`` (docs/protocol.md §8)."""

from collections.abc import Iterable
from datetime import UTC, datetime

from aiohttp import web

from mirror.access import CALLER, Scope, Seal, SignedRequests
from mirror.access.credentials import Credentials, shown
from mirror.errors import TokenRefused
from mirror.registry.realms import TOKEN_PATH, Realms
from mirror.registry.replies import error_reply

_RENEWED = "a token gets no other, or one that was stolen would never end; show the key"
_KNOWN = "show a key: Authorization: Basic with the key as password, Bearer KEY, or the signature of a known Ollama"


class TokenFace:
    """Gives tokens to those who sign as Ollama does, and to those who show a key."""

    def __init__(self, credentials: Credentials, signed: SignedRequests, realms: Realms, ttl_s: float) -> None:
        self._credentials = credentials
        self._keys = credentials.keys
        self._signed = signed
        self._realms = realms
        self._ttl_s = ttl_s

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return its one route; it comes before the rest of ``/v2``."""
        return [web.get(TOKEN_PATH, self._token, allow_head=False)]

    async def _token(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        authorization = request.headers.get("Authorization", "")
        try:
            if Seal.is_token(shown(authorization)):
                raise TokenRefused(_RENEWED)  # noqa: TRY301  # answered as every other refusal
            if caller.key_id is not None:  # the gate has believed the key
                return self._given(caller.key_id, caller.user, caller.scopes)
            if not authorization or " " in authorization.strip():
                raise TokenRefused(_KNOWN)  # noqa: TRY301  # answered as every other refusal
            key = self._signed.key(authorization.strip(), self._realms.called(request, caller))
        except TokenRefused as error:
            wait_s = self._credentials.refused(authorization, caller) if authorization else 0.0
            if wait_s > 0.0:
                return too_many(wait_s)
            return error_reply(401, "UNAUTHORIZED", str(error))
        return self._given(key.id, key.user, frozenset(key.scopes))

    def _given(self, key_id: str, user: str, scopes: Iterable[Scope]) -> web.Response:
        token = self._keys.seal.token(key_id, user, sorted(scopes), self._ttl_s)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        said = {"token": token, "access_token": token, "expires_in": int(self._ttl_s), "issued_at": now}
        return web.json_response(said, headers={"Cache-Control": "no-store"})


def too_many(wait_s: float) -> web.Response:
    """Return the answer to one who has shown too many wrong keys."""
    said = "too many wrong keys from this address; wait a minute, and see which key this machine shows"
    return error_reply(429, "TOOMANYREQUESTS", said, {"Retry-After": str(int(wait_s) + 1)})
