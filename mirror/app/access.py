"""Who may do what, built on one screen: the keys, the gate that asks them, and the faces of tokens and keys."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from mirror.access import Keyring, Keys, Passes, Seal, SignedRequests, WrongKeys
from mirror.access.credentials import Credentials
from mirror.access.desk import Desk
from mirror.config import Settings
from mirror.listen import Names
from mirror.registry import TokenFace
from mirror.registry.realms import Realms
from mirror.web import Gate, KeysFace


@dataclass(frozen=True, slots=True)
class Access:
    """What faces and the gate stand on."""

    keys: Keys
    gate: Gate
    faces: tuple[TokenFace | KeysFace, ...]

    @property
    def seal(self) -> Seal:
        """What makes tokens and tickets."""
        return self.keys.seal

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes of keys and tokens, which come before all others."""
        return [route for face in self.faces for route in face.routes()]


def access_of(settings: Settings, names: Names, passes: Passes) -> Access:
    """Read the keys of the state folder, which has to be there. Raises BadKey: nothing may be served then.

    ``names`` are those by which clients call the mirror.
    """
    security, state = settings.security, settings.cache.state_directory.absolute()
    keyring = Keyring(state)
    keys = Keys(keyring, Seal.opened(state, security.ticket_ttl), security)
    credentials = Credentials(keys, WrongKeys(time.monotonic), WrongKeys(time.monotonic))
    realms = Realms(names)
    tokens = TokenFace(credentials, SignedRequests(keys), realms, security.token_ttl)
    return Access(
        keys,
        Gate(settings, credentials, realms, passes, time.monotonic),
        (tokens, KeysFace(Desk(keyring, security), keys)),
    )
