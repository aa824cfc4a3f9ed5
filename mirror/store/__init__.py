"""Bytes at rest: proven blobs, complete models, partials on their way in. Touches the disk and nothing else.

Public are the Store and the values it hands out; paths are built in ``layout`` and nowhere else.
"""

from mirror.store.blobs import BlobStore, OpenBlob
from mirror.store.census import Census, OnDisk, census
from mirror.store.layout import Layout
from mirror.store.linking import can_link, link_model
from mirror.store.lock import StoreLock, holder
from mirror.store.manifests import ManifestShelf, StoredManifest
from mirror.store.partial import Partial
from mirror.store.pins import Pins
from mirror.store.room import Limits, Promise, Room, Shortage
from mirror.store.store import Store
from mirror.store.verify import Problem, Progress, verify

__all__ = [
    "BlobStore",
    "Census",
    "Layout",
    "Limits",
    "ManifestShelf",
    "OnDisk",
    "OpenBlob",
    "Partial",
    "Pins",
    "Problem",
    "Progress",
    "Promise",
    "Room",
    "Shortage",
    "Store",
    "StoreLock",
    "StoredManifest",
    "can_link",
    "census",
    "holder",
    "link_model",
    "verify",
]
