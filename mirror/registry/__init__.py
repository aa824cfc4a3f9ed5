"""The ``/v2`` face: HTTP in, values down, bytes out. Decides nothing that a room below could decide.

An answer's ``X-Mirror-Cache`` says where it came from. Routes are docs/protocol.md §3 and the OCI distribution
specification, as far as reading goes.
"""

from mirror.registry.face import RegistryFace
from mirror.registry.locations import Locations
from mirror.registry.senders import Senders
from mirror.registry.tokens import TokenFace

__all__ = ["Locations", "RegistryFace", "Senders", "TokenFace"]
