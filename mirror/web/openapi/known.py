"""Values that the document lists and the code says elsewhere, by the names that its parts call them by."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from mirror.access import Scope
from mirror.batches.batch import ENDPOINTS
from mirror.batches.batch import State as BatchState
from mirror.config import Run
from mirror.events import Served
from mirror.hub import Status as NodeState
from mirror.keep import Kind as RemovedKind
from mirror.prompts import State as PromptState
from mirror.pulls import State as JobState
from mirror.web.event_views import TOPICS
from mirror.web.setup import KEYS


def _of(values: Iterable[StrEnum]) -> tuple[str, ...]:
    return tuple(one.value for one in values)


KNOWN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "$batch_states": _of(BatchState),
        "$endpoints": ENDPOINTS,
        "$job_states": _of(JobState),
        "$node_states": _of(NodeState),
        "$prompt_states": _of(PromptState),
        "$removed_kinds": _of(RemovedKind),
        "$runs": _of(Run),
        "$scopes": _of(Scope),
        "$served": _of(Served),
        "$topics": TOPICS,
        "$ways": KEYS,
    }
)
