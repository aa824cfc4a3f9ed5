"""The news as log lines."""

import structlog

from mirror.events import (
    BlobDamaged,
    BlobRepaired,
    DigestMismatched,
    Event,
    FillEnded,
    FillStarted,
    LeftoverRemoved,
    ModelRemoved,
    ModelStored,
    NotKept,
    ScrubEnded,
)

LOGGED = (
    FillStarted,
    FillEnded,
    DigestMismatched,
    NotKept,
    ModelStored,
    ModelRemoved,
    LeftoverRemoved,
    BlobDamaged,
    BlobRepaired,
    ScrubEnded,
)
"""The news that is rare enough to be worth a line."""

log = structlog.get_logger("mirror.news")


def log_news(event: Event) -> None:
    """Write one piece of news down; the tap for ``Events``."""
    match event:
        case FillStarted(digest, size, resumed):
            log.info("fill started", digest=digest.short, size_bytes=size, resumed_bytes=resumed)
        case FillEnded(digest, size, fetched, duration_s, None):
            log.info(
                "fill done",
                digest=digest.short,
                size_bytes=size,
                fetched_bytes=fetched,
                duration_s=round(duration_s, 3),
            )
        case FillEnded(digest, _, fetched, _, error):
            log.warning("fill ended", digest=digest.short, fetched_bytes=fetched, problem=error)
        case DigestMismatched(digest):
            log.warning("digest mismatch", digest=str(digest))
        case NotKept(digest, reason):
            log.warning("passed through", digest=digest.short, reason=reason)
        case ModelStored(name, digest, size):
            log.info("model stored", name=name.short, digest=digest.short, size_bytes=size)
        case ModelRemoved() | LeftoverRemoved() | BlobDamaged() | BlobRepaired() | ScrubEnded():
            _log_keeping(event)
        case _:
            pass


def _log_keeping(event: Event) -> None:
    match event:
        case ModelRemoved(name, freed, reason, why):
            log.info("model removed", name=name.short, freed_bytes=freed, reason=reason.value, why=why)
        case LeftoverRemoved(kind, what, freed, reason, why):
            log.info("leftover removed", kind=kind, what=what, freed_bytes=freed, reason=reason.value, why=why)
        case BlobDamaged(digest, names):
            log.error("blob damaged", digest=str(digest), models=[name.short for name in names])
        case BlobRepaired(digest):
            log.info("blob repaired", digest=str(digest))
        case ScrubEnded(blobs, size, damaged, duration_s):
            log.info("scrub done", blobs=blobs, size_bytes=size, damaged=damaged, duration_s=round(duration_s, 1))
        case _:
            pass
