"""News between rooms: frozen values that nobody must answer. Holds memory only, touches nothing."""

from mirror.events.bus import Events, Subscription
from mirror.events.news import (
    BlobDamaged,
    BlobRepaired,
    BlobServed,
    BytesFetched,
    DigestMismatched,
    Event,
    FillEnded,
    FillStarted,
    LeftoverRemoved,
    ManifestServed,
    ModelRemoved,
    ModelStored,
    NotKept,
    Reason,
    ScrubEnded,
    Served,
    UpstreamAnswered,
)

__all__ = [
    "BlobDamaged",
    "BlobRepaired",
    "BlobServed",
    "BytesFetched",
    "DigestMismatched",
    "Event",
    "Events",
    "FillEnded",
    "FillStarted",
    "LeftoverRemoved",
    "ManifestServed",
    "ModelRemoved",
    "ModelStored",
    "NotKept",
    "Reason",
    "ScrubEnded",
    "Served",
    "Subscription",
    "UpstreamAnswered",
]
