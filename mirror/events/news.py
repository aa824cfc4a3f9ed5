"""The news there is. Sizes are bytes, durations seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from mirror.values import Digest, Manifest, ModelName


class Served(StrEnum):
    """Where an answer came from; what X-Mirror-Cache says."""

    HIT = "HIT"
    """From the store."""
    MISS = "MISS"
    """From upstream, for this reader first; kept."""
    FILL = "FILL"
    """From a fill that was already running."""
    STALE = "STALE"
    """From the store, though the upstream could not be asked whether it is still so."""
    PASS = "PASS"  # noqa: S105  # not a password
    """From upstream, without being kept."""


class Reason(StrEnum):
    """Why something was taken out of the store."""

    ASKED = "asked"
    """Somebody asked for it."""
    RETENTION = "retention"
    """Nobody used it for too long."""
    SIZE = "size"
    """The store was over its size."""
    FREE = "free"
    """The disk had too little left."""
    LOOSE = "loose"
    """No model named it."""
    LEFTOVER = "leftover"
    """Nobody went on with it, or looked at it, for too long."""
    ELSEWHERE = "elsewhere"
    """An Ollama that shares the folder removed it."""


@dataclass(frozen=True, slots=True)
class ManifestServed:
    """A manifest went to a client."""

    name: ModelName
    result: Served


@dataclass(frozen=True, slots=True)
class BlobServed:
    """Bytes of a blob went to a client; ``sent`` is how many, also where the client left early."""

    name: ModelName
    digest: Digest
    result: Served
    sent: int


@dataclass(frozen=True, slots=True)
class FillStarted:
    """A blob began to come in; ``resumed`` bytes of it were here from before."""

    digest: Digest
    size: int
    resumed: int


@dataclass(frozen=True, slots=True)
class BytesFetched:
    """Bytes arrived from upstream."""

    digest: Digest
    count: int


@dataclass(frozen=True, slots=True)
class FillEnded:
    """A fill is over: proven and in the store, or not (``error`` says why)."""

    digest: Digest
    size: int
    fetched: int
    duration_s: float
    error: str | None


@dataclass(frozen=True, slots=True)
class DigestMismatched:
    """The bytes an upstream sent are not those of the digest; they were thrown away."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class NotKept:
    """A blob is passed through without being kept; ``reason`` is a sentence."""

    digest: Digest
    reason: str


@dataclass(frozen=True, slots=True)
class ModelStored:
    """Every blob of the model is in the store, and its manifest with them."""

    name: ModelName
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class ModelReplaced:
    """A complete model took the name of another; ``former`` is the manifest that the tag meant until now."""

    name: ModelName
    former: Manifest
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class ModelRemoved:
    """A model was taken out of the store; ``freed`` bytes of blobs went with it. ``why`` is a phrase."""

    name: ModelName
    freed: int
    reason: Reason
    why: str


@dataclass(frozen=True, slots=True)
class LeftoverRemoved:
    """Something that belongs to no model was removed: ``kind`` is blob, partial, manifest or quarantine."""

    kind: str
    what: str
    freed: int
    reason: Reason
    why: str


@dataclass(frozen=True, slots=True)
class BlobDamaged:
    """A blob was not what its name says; it was put aside, and ``names`` lack it now."""

    digest: Digest
    names: tuple[ModelName, ...]


@dataclass(frozen=True, slots=True)
class BlobRepaired:
    """A damaged blob was fetched again and is whole."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class ScrubEnded:
    """Every blob was hashed again: how many, their bytes, and how many of them were damaged."""

    blobs: int
    size: int
    damaged: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class PullEnded:
    """A job of the queue is over: ``outcome`` is completed, failed, refused or cancelled. Instants are aware UTC.

    ``size`` is None where its manifest never came, ``error`` where nothing went wrong.
    """

    id: str
    name: ModelName
    outcome: str
    size: int | None
    requesters: tuple[str, ...]
    tries: int
    error: str | None
    created_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Answered:
    """A model has answered a user's request on an Ollama: tokens read and made, how long it waited and ran.

    ``first_s`` is how much of that went by until the first of the answer was there, where that is known.
    """

    user: str
    model: str
    backend: str
    prompt: int
    made: int
    waited_s: float
    ran_s: float
    status: int
    first_s: float | None = None


@dataclass(frozen=True, slots=True)
class UpstreamAnswered:
    """The upstream answered (or did not) one small request."""

    host: str
    duration_s: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells nobody of itself, as a look each second found it: ``said`` is for people who watch."""

    topic: str
    kind: str
    said: Mapping[str, Any]


Event = (
    ManifestServed
    | BlobServed
    | FillStarted
    | BytesFetched
    | FillEnded
    | DigestMismatched
    | NotKept
    | ModelStored
    | ModelReplaced
    | ModelRemoved
    | LeftoverRemoved
    | BlobDamaged
    | BlobRepaired
    | ScrubEnded
    | PullEnded
    | Answered
    | UpstreamAnswered
    | Seen
)
