"""A manifest: the raw bytes, whose digest is the model's id, and a view of what they name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from sys import intern
from typing import Any, Self

from mirror.values.digest import Digest
from mirror.values.invalid import InvalidDigest, InvalidManifest

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_INDEX, OCI_INDEX)
MAX_MANIFEST_BYTES = 16 << 20
"""Tensor models have thousands of layers; nothing known comes near this."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of one blob; ``size`` in bytes, as written there."""

    digest: Digest
    size: int
    media_type: str

    @classmethod
    def parse(cls, entry: object) -> Self:
        """Read one descriptor of a manifest. Raises InvalidManifest."""
        if not isinstance(entry, dict):
            raise InvalidManifest(_kind(entry), "an object with digest, size and mediaType")
        size = entry.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62:
            raise InvalidManifest(_kind(size), "a size of 0 or more bytes")
        try:
            digest = Digest.parse(_text(entry, "digest"))
        except InvalidDigest as error:
            raise InvalidManifest(error.text, error.accepted) from error
        return cls(digest, size, intern(_text(entry, "mediaType")))  # a hundred thousand blobs share a few of them


@dataclass(frozen=True)
class Manifest:
    """An image manifest or index. ``raw`` is never written anew: its digest is the model's identity.

    ``config`` is None for an index and for a manifest without one (an empty digest); ``children``
    are the manifests an index names.
    """

    raw: bytes
    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, raw: bytes, media_type: str = "") -> Self:
        """Read ``raw``; ``media_type``, what a server called it, counts only where the JSON does not say.

        registry.ollama.ai has called its manifests text/plain: only a manifest type is believed.

        Raises:
            InvalidManifest: no JSON object, too large, or an entry that is no descriptor.
        """
        if len(raw) > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"{len(raw)} bytes", f"at most {MAX_MANIFEST_BYTES} bytes")
        view = _json_object(raw)
        children = tuple(Descriptor.parse(entry) for entry in _list(view, "manifests"))
        said = (_text(view, "mediaType"), media_type.partition(";")[0].strip())
        known = next((one for one in said if one in MANIFEST_TYPES), OCI_INDEX if children else DOCKER_MANIFEST)
        layers = tuple(Descriptor.parse(entry) for entry in _list(view, "layers"))
        config = view.get("config")
        if not isinstance(config, dict) or not config.get("digest"):
            config = None
        if not children and not layers and config is None:
            raise InvalidManifest(_shown(raw), "an object with layers, config or manifests")
        return cls(raw, known, Descriptor.parse(config) if config else None, layers, children)

    @cached_property
    def digest(self) -> Digest:
        """The sha256 of the raw bytes."""
        return Digest.of(self.raw)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob it names, once each, in the order Ollama fetches them: layers, then config.

        The manifests an index names count as blobs, for so they are kept.
        """
        every = (*self.layers, *((self.config,) if self.config else ()), *self.children)
        return tuple({one.digest: one for one in every}.values())

    @property
    def size(self) -> int:
        """What Ollama shows as the model's size: the sum as written, duplicates counted twice."""
        return sum(one.size for one in self.layers) + (self.config.size if self.config else 0)


def _json_object(raw: bytes) -> Mapping[str, Any]:
    try:
        view = json.loads(raw.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(_shown(raw), "JSON") from error
    if not isinstance(view, dict):
        raise InvalidManifest(_shown(raw), "a JSON object")
    return view


def _list(view: Mapping[str, Any], key: str) -> list[object]:
    entries = view.get(key)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise InvalidManifest(_kind(entries), f"a list of descriptors as {key}")
    return entries


def _text(view: Mapping[str, Any], key: str) -> str:
    found = view.get(key)
    return found if isinstance(found, str) else ""


def _refuse(constant: str) -> None:
    """NaN and Infinity are Python's; no client of ours reads them."""
    raise ValueError(constant)


def _kind(value: object) -> str:
    """What to show of a value that is in the wrong place: a nested one may be too deep to print."""
    return repr(value) if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__


def _shown(raw: bytes) -> str:
    return raw[:200].decode("utf-8", "replace")
