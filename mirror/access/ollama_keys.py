"""Requests for a token that an Ollama signs with its own ed25519 key (docs/protocol.md §8)."""

import base64
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import parse_qs

from mirror.access.key import Key, raw_public
from mirror.access.keys import Keys
from mirror.errors import TokenRefused

_NOTHING = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
"""Base64 of the hexadecimal sha256 of an empty body, which ends every text that is signed (ollama server/auth.go)."""
_APART_S = 300.0
_NONCE = range(16, 257)
_MOST = 2_000


class SignedRequests:
    """Knows the signed requests of the last minutes, so that none is taken twice. To be used on the loop."""

    def __init__(self, keys: Keys, now: Callable[[], float] = time.time, most: int = _MOST) -> None:
        """``most`` requests of each key are remembered; above, new ones of it are refused until the oldest are too old.

        A count of all would let one Ollama keep the others from their tokens.
        """
        self._keys = keys
        self._now = now
        self._most = most
        self._taken: dict[str, OrderedDict[str, float]] = {}

    def key(self, authorization: str, url: str) -> Key:
        """Return the live key that signed a request for ``url``: the text that the client called, query and all.

        Raises TokenRefused, whose sentence may be shown: it tells no secrets.
        """
        public, _, said = authorization.partition(":")
        found = self._keys.of_ollama(public)
        if found is None:
            raise TokenRefused(
                "this mirror does not know the key of this Ollama, or it has ended: "
                "mirror key add NAME --ollama id_ed25519.pub brings it in"
            )
        if not _signed(found, said, f"GET,{url},{_NOTHING}"):
            raise TokenRefused(f"the signature is not one of {found.name} for {url.partition('?')[0]}")
        self._once(found, url.partition("?")[2])
        return found

    def _once(self, key: Key, query: str) -> None:
        try:
            said = parse_qs(query, keep_blank_values=True, max_num_fields=64, errors="strict")
        except ValueError:
            said = {}
        nonces, times = said.get("nonce", []), said.get("ts", [])
        if len(nonces) != 1 or len(nonces[0]) not in _NONCE or len(times) != 1 or not _is_time(times[0]):
            raise TokenRefused("a request for a token needs one ts in seconds, and one nonce of at least 16 characters")
        now, at = self._now(), int(times[0])
        if abs(now - at) > _APART_S:
            raise TokenRefused("the request for a token is too old or too new: set the clocks of both machines right")
        taken = self._taken.setdefault(key.id, OrderedDict())
        while taken and next(iter(taken.values())) < now:
            taken.popitem(last=False)
        if nonces[0] in taken:
            raise TokenRefused("this request for a token was made before; each needs a nonce of its own")
        if len(taken) >= self._most:
            raise TokenRefused(f"too many requests for tokens by {key.name}; try again in a few minutes")
        # As long as its time could be right: kept in the order in which they are forgotten.
        taken[nonces[0]] = now + 2 * _APART_S


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _signed(key: Key, said: str, text: str) -> bool:
    from cryptography.exceptions import InvalidSignature  # commands that only list keys need not wait for it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signature = base64.b64decode(said, validate=True)
        Ed25519PublicKey.from_public_bytes(raw_public(key.proof)).verify(signature, text.encode())
    except (ValueError, InvalidSignature):
        return False
    return True
