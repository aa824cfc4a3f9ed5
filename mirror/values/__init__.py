"""Values that every room speaks in: parsed once at the edge, frozen, compared by content.

This room imports nothing of ours, does no I/O and looks at no clock.
"""

from mirror.values.digest import Digest
from mirror.values.invalid import (
    Invalid,
    InvalidDigest,
    InvalidManifest,
    InvalidModelName,
    InvalidPattern,
    InvalidRange,
    InvalidWindow,
)
from mirror.values.json_text import LARGE_JSON, MOST_PARTS, too_many_parts
from mirror.values.manifest import MANIFEST_TYPES, MAX_MANIFEST_BYTES, Descriptor, Manifest
from mirror.values.name import DEFAULT_HOST, ModelName
from mirror.values.pattern import NamePattern
from mirror.values.ranges import ByteRange, RangeSet

__all__ = [
    "DEFAULT_HOST",
    "LARGE_JSON",
    "MANIFEST_TYPES",
    "MAX_MANIFEST_BYTES",
    "MOST_PARTS",
    "ByteRange",
    "Descriptor",
    "Digest",
    "Invalid",
    "InvalidDigest",
    "InvalidManifest",
    "InvalidModelName",
    "InvalidPattern",
    "InvalidRange",
    "InvalidWindow",
    "Manifest",
    "ModelName",
    "NamePattern",
    "RangeSet",
    "too_many_parts",
]
