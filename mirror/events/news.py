"""The news there is. Sizes are bytes, durations seconds."""

from dataclasses import dataclass
from enum import StrEnum

from mirror.values import Digest, ModelName


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
class ModelRemoved:
    """A model was taken out of the store; ``freed`` bytes of blobs went with it."""

    name: ModelName
    freed: int


@dataclass(frozen=True, slots=True)
class UpstreamAnswered:
    """The upstream answered (or did not) one small request."""

    host: str
    duration_s: float
    ok: bool


Event = (
    ManifestServed
    | BlobServed
    | FillStarted
    | BytesFetched
    | FillEnded
    | DigestMismatched
    | NotKept
    | ModelStored
    | ModelRemoved
    | UpstreamAnswered
)
