"""``GET /v2/token``, and the challenge that leads clients there (docs/protocol.md §8)."""

from collections.abc import Iterable
from datetime import UTC, datetime

from aiohttp import web

from mirror.access import CALLER, Caller, Scope, Seal, SignedRequests
from mirror.access.credentials import Credentials, shown
from mirror.errors import TokenRefused
from mirror.registry.replies import error_reply

_PATH = "/v2/token"
_RENEWED = "a token gets no other, or one that was stolen would never end; show the key"
_KNOWN = "show a key: Authorization: Basic with the key as password, Bearer KEY, or the signature of a known Ollama"


class TokenFace:
    """Gives tokens to those who sign as Ollama does, and to those who show a key."""

    def __init__(self, credentials: Credentials, signed: SignedRequests, ttl_s: float) -> None:
        self._credentials = credentials
        self._keys = credentials.keys
        self._signed = signed
        self._ttl_s = ttl_s

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return its one route; it comes before the rest of ``/v2``."""
        return [web.get(_PATH, self._token, allow_head=False)]

    async def _token(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        authorization = request.headers.get("Authorization", "")
        try:
            if Seal.is_token(shown(authorization)):
                raise TokenRefused(_RENEWED)  # noqa: TRY301  # answered as every other refusal
            if (grant := self._credentials.grant(authorization, caller)) is not None:
                return self._given(grant.key_id, grant.user, grant.scopes)
            if not authorization or " " in authorization.strip():
                raise TokenRefused(_KNOWN)  # noqa: TRY301  # answered as every other refusal
            key = self._signed.key(authorization.strip(), called(request, caller))
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


def called(request: web.Request, caller: Caller) -> str:
    """Return the text of the address that the client called: the realm that it was told, and its query as sent."""
    return f"{_realm(request, caller)}?{request.raw_path.partition('?')[2]}"


def challenge(request: web.Request, caller: Caller) -> dict[str, str]:
    """Return the header that sends a client for a token.

    Ollama takes a realm only on the host and port by which it came (server/auth.go since v0.14.3), and reads quoted
    values only.
    """
    parts = request.path.split("/")
    scope = ""
    if len(parts) > 5:
        wanted = "pull" if request.method in ("GET", "HEAD") else "pull,push"
        # Nothing of a path may end the quotes early.
        repository = "".join(
            one for one in f"{parts[2]}/{parts[3]}" if one.isascii() and (one.isalnum() or one in "/._-")
        )
        scope = f',scope="repository:{repository}:{wanted}"'
    return {"WWW-Authenticate": f'Bearer realm="{_realm(request, caller)}",service="mirror"{scope}'}


def too_many(wait_s: float) -> web.Response:
    """Return the answer to one who has shown too many wrong keys."""
    said = "too many wrong keys from this address; wait a minute, and see which key this machine shows"
    return error_reply(429, "TOOMANYREQUESTS", said, {"Retry-After": str(int(wait_s) + 1)})


def _realm(request: web.Request, caller: Caller) -> str:
    # In absolute form the port is in the target only; aiohttp's host leaves it out.
    target = request.raw_path
    said = request.host if target.startswith("/") else target.partition("://")[2].partition("/")[0]
    host = "".join(one for one in said if one.isascii() and (one.isalnum() or one in "._-:[]%"))
    return f"{'https' if caller.secure else 'http'}://{host}{_PATH}"
