"""What a request shows: the key in its Authorization, and what it is worth."""

import base64
from dataclasses import replace

from mirror.access.callers import Caller
from mirror.access.keys import Grant, Keys
from mirror.access.limits import WrongKeys, client_of
from mirror.access.seals import Seal

_LONGEST = 8192


class Credentials:
    """Believes keys and tokens, and bounds how often an address may show what is neither. To be used on the loop.

    Two counts: ``wrong`` is of what was refused where a key was needed; above it the answer is 429. ``guesses`` is of
    all that was shown on any route while there is a key that people chose; above it that key is not believed, for open
    routes tell a right guess too.
    """

    def __init__(self, keys: Keys, wrong: WrongKeys, guesses: WrongKeys) -> None:
        self.keys = keys
        self._wrong = wrong
        self._guesses = guesses

    def grant(self, authorization: str, caller: Caller) -> Grant | None:
        """Return what an Authorization header is worth: ``Bearer KEY``, ``Bearer TOKEN`` or ``Basic`` of anything:KEY.

        Call it once for a request. Who has shown too many wrong ones is not told whether the next guess is right: a key
        of ours is no guess.
        """
        text = shown(authorization)
        found = self.keys.grant(text)
        if found is None:
            if text and self.keys.has_guessable and not Seal.is_token(text):
                self._guesses.take(_address(caller))
            return None
        if self.keys.is_guessable(found) and self._guesses.wait_s(_address(caller)) > 0.0:
            return None
        return found

    def refused(self, authorization: str, caller: Caller) -> float:
        """Count what was worth nothing where it was needed; return the seconds to wait, 0 before there were too many.

        A token that has ended is shown in good faith, and nobody can guess one.
        """
        text = shown(authorization)
        return 0.0 if Seal.is_token(text) else self._wrong.take(_address(caller))


def shown(authorization: str) -> str:
    """Return the key or token of an Authorization header (RFC 6750, RFC 7617); an empty text where there is none."""
    scheme, _, said = authorization.partition(" ")
    said = said.strip()
    if len(said) > _LONGEST:
        return ""
    match scheme.lower():
        case "bearer":
            return said
        case "basic":
            try:
                return base64.b64decode(said, validate=True).decode(errors="surrogateescape").partition(":")[2]
            except ValueError:
                return ""
        case _:
            return ""


def with_grant(caller: Caller, grant: Grant) -> Caller:
    """Return the caller as whose key it has shown."""
    return replace(caller, user=grant.user, key_id=grant.key_id, scopes=grant.scopes)


def _address(caller: Caller) -> str:
    return client_of(None, caller.address)
