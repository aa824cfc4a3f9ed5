"""News as JSON, for people who watch. Pure."""

from datetime import datetime
from typing import Any

from mirror.events import (
    Answered,
    BlobDamaged,
    BlobRepaired,
    DigestMismatched,
    Event,
    FillEnded,
    FillStarted,
    LeftoverRemoved,
    ModelRemoved,
    ModelReplaced,
    ModelStored,
    NotKept,
    PullEnded,
    ScrubEnded,
    Seen,
)
from mirror.web.hiding import Hidden, hides, nothing_hidden

TOPICS = ("fills", "pulls", "turns", "nodes", "store", "prompts")
TOLD = (
    FillStarted,
    FillEnded,
    DigestMismatched,
    NotKept,
    PullEnded,
    Answered,
    ModelStored,
    ModelReplaced,
    ModelRemoved,
    LeftoverRemoved,
    BlobDamaged,
    BlobRepaired,
    ScrubEnded,
    Seen,
)
"""The news that is told; what is served and fetched comes too often, and is summed up by looks."""


def told(event: Event, hidden: Hidden) -> tuple[str, dict[str, Any]] | None:
    """Return the topic of one piece of news and what it says; None where it is not for who asks."""
    match event:
        case Seen("fills", "progress", said):
            return "fills", {"kind": "progress", "fills": [_without_hidden(one, hidden) for one in said["fills"]]}
        case Seen(topic, kind, said):
            return topic, {"kind": kind, **said}
        case Answered():
            return _answered(event, hidden)
        case PullEnded():
            return _pull_ended(event, hidden)
        case FillStarted() | FillEnded() | DigestMismatched() | NotKept():
            return "fills", _of_a_fill(event, frank=hidden is nothing_hidden)
        case _:
            return _of_the_store(event, hidden)


def _of_a_fill(event: FillStarted | FillEnded | DigestMismatched | NotKept, *, frank: bool) -> dict[str, Any]:
    """Say what became of a blob; only to whom nothing is hidden in words that may name its model."""
    digest = str(event.digest)
    match event:
        case FillStarted(_, size, resumed):
            return {"kind": "fill_started", "digest": digest, "size": size, "resumed": resumed}
        case FillEnded(_, size, fetched, duration_s, error):
            said = error if frank or error is None else "it could not be fetched"
            took = {"fetched": fetched, "duration_s": round(duration_s, 3), "error": said}
            return {"kind": "fill_ended", "digest": digest, "size": size, **took}
        case DigestMismatched():
            return {"kind": "digest_mismatched", "digest": digest}
        case NotKept(_, reason):
            return {"kind": "not_kept", "digest": digest, "reason": reason if frank else "it could not be kept"}


def _of_the_store(event: Event, hidden: Hidden) -> tuple[str, dict[str, Any]] | None:
    match event:
        case ModelStored(name, digest, size):
            said = {"kind": "model_stored", "name": name.short, "digest": str(digest), "size": size}
        case ModelReplaced(name, former, _):
            said = {"kind": "model_replaced", "name": name.short, "former": str(former.digest)}
        case ModelRemoved(name, freed, reason, why):
            said = {"kind": "model_removed", "name": name.short, "freed": freed, "reason": reason.value, "why": why}
        case LeftoverRemoved(kind, what, freed, reason, why):
            said = {"kind": f"{kind}_removed", "what": what, "freed": freed, "reason": reason.value, "why": why}
            return ("store", said) if kind != "manifest" or not hides(hidden, what) else None
        case BlobDamaged(digest, names):
            seen = [name.short for name in names if not hidden(name)]
            return "store", {"kind": "blob_damaged", "digest": str(digest), "models": seen}
        case BlobRepaired(digest):
            return "store", {"kind": "blob_repaired", "digest": str(digest)}
        case ScrubEnded(blobs, size, damaged, duration_s):
            found = {"blobs": blobs, "size": size, "damaged": damaged, "duration_s": round(duration_s, 1)}
            return "store", {"kind": "scrub_ended", **found}
        case _:
            return None
    return None if hidden(name) else ("store", said)


def _pull_ended(event: PullEnded, hidden: Hidden) -> tuple[str, dict[str, Any]] | None:
    if hidden(event.name):
        return None
    said = {
        "kind": "pull_ended",
        "id": event.id,
        "name": event.name.short,
        "outcome": event.outcome,
        "size": event.size,
        "requesters": list(event.requesters),
        "tries": event.tries,
        "error": event.error,
        "created_at": _text(event.created_at),
        "finished_at": _text(event.finished_at),
    }
    return "pulls", said


def _answered(event: Answered, hidden: Hidden) -> tuple[str, dict[str, Any]] | None:
    if event.model and hides(hidden, event.model):
        return None
    said = {
        "kind": "answered",
        "user": event.user,
        "model": event.model,
        "backend": event.backend,
        "prompt": event.prompt,
        "made": event.made,
        "waited_s": round(event.waited_s, 3),
        "ran_s": round(event.ran_s, 3),
        "status": event.status,
    }
    return "turns", said


def _without_hidden(fill: dict[str, Any], hidden: Hidden) -> dict[str, Any]:
    return {**fill, "models": [name for name in fill["models"] if not hides(hidden, name)]}


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds")
