"""News between rooms: frozen values that nobody must answer. Holds memory only, touches nothing."""

from mirror.events.bus import Events, Subscription
from mirror.events.news import (
    BlobServed,
    BytesFetched,
    DigestMismatched,
    Event,
    FillEnded,
    FillStarted,
    ManifestServed,
    ModelRemoved,
    ModelStored,
    NotKept,
    Served,
    UpstreamAnswered,
)

__all__ = [
    "BlobServed",
    "BytesFetched",
    "DigestMismatched",
    "Event",
    "Events",
    "FillEnded",
    "FillStarted",
    "ManifestServed",
    "ModelRemoved",
    "ModelStored",
    "NotKept",
    "Served",
    "Subscription",
    "UpstreamAnswered",
]
