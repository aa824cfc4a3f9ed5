"""A batch, and the files that it reads and writes: what is asked, and how far it is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from mirror.config import Run
from mirror.errors import MirrorError
from mirror.values import Invalid

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
WINDOW = "24h"
PURPOSE, OUTPUT = "batch", "batch_output"
LIFE = timedelta(hours=24)
_MOST_METADATA, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512
_LONGEST_ID = 100


class InvalidBatch(Invalid):
    """Not what a batch, a file or a page of them is asked by."""

    kind = "request"


class NoSuchFile(MirrorError):
    """No file of that id is known to who asks for it."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"No such File object: {id_[:_LONGEST_ID]}")


class NoSuchBatch(MirrorError):
    """No batch of that id is known to who asks for it."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"No batch found with id '{id_[:_LONGEST_ID]}'.")


class TooLarge(MirrorError):
    """A file or a body of more bytes than are taken; nothing was kept."""


class TooManyBatches(MirrorError):
    """As many batches are under way as may be; nothing was added."""

    permanent = False


class State(StrEnum):
    """How far a batch is."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in UNDER_WAY


UNDER_WAY = frozenset({State.VALIDATING, State.IN_PROGRESS, State.FINALIZING, State.CANCELLING})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFile:
    """A file of ``size`` bytes, which a client brought or a batch wrote."""

    id: str
    user: str
    name: str
    purpose: str
    size: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a client asks: that each line of a file be run at an endpoint."""

    input_file: str
    endpoint: str
    run: Run
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of ``user``; the policy is asked about ``asker``. ``times`` say by the name of OpenAI's field when it
    came to a state. Of its ``total`` lines so many are ``completed`` and ``failed`` once it is over.
    """

    id: str
    user: str
    asker: str
    wanted: Wanted
    created_at: datetime
    state: State = State.VALIDATING
    output_file: str | None = None
    error_file: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    error: str | None = None
    times: Mapping[str, int] = field(default_factory=dict)

    @property
    def expires_at(self) -> datetime:
        """When lines are begun no more."""
        return self.created_at + LIFE


def parse_batch(said: object, default_run: Run) -> Wanted:
    """Read the body of POST /v1/batches. Raises InvalidBatch."""
    if not isinstance(said, dict):
        raise InvalidBatch(type(said).__name__, 'a JSON object with "input_file_id", "endpoint", "completion_window"')
    file, endpoint, window = (said.get(key) for key in ("input_file_id", "endpoint", "completion_window"))
    if not isinstance(file, str) or not (file.isascii() and 0 < len(file) <= _LONGEST_ID):
        raise InvalidBatch(str(file)[:_LONGEST_ID], "input_file_id: the id of a file")
    if endpoint not in ENDPOINTS:
        raise InvalidBatch(str(endpoint)[:_LONGEST_ID], f"endpoint: {', '.join(ENDPOINTS)}")
    if window != WINDOW:
        raise InvalidBatch(str(window)[:_LONGEST_ID], f"completion_window: {WINDOW}")
    metadata = _metadata(said.get("metadata"))
    run = (metadata or {}).get("run", default_run)
    if run not in list(Run):
        raise InvalidBatch(run[:_LONGEST_ID], f"metadata.run: {', '.join(Run)}")
    return Wanted(input_file=file, endpoint=str(endpoint), run=Run(run), metadata=metadata)


def _metadata(said: object) -> Mapping[str, str] | None:
    if said is None:
        return None
    sound = isinstance(said, dict) and len(said) <= _MOST_METADATA
    if not isinstance(said, dict) or not sound or not all(_is_pair(key, value) for key, value in said.items()):
        accepted = (
            f"metadata: at most {_MOST_METADATA} texts, of {_LONGEST_VALUE} characters, by names of {_LONGEST_KEY}"
        )
        raise InvalidBatch(str(said)[:_LONGEST_ID], accepted)
    return said


def _is_pair(key: object, value: object) -> bool:
    return isinstance(key, str) and len(key) <= _LONGEST_KEY and isinstance(value, str) and len(value) <= _LONGEST_VALUE
