"""The news as log lines."""

import structlog

from mirror.events import DigestMismatched, Event, FillEnded, FillStarted, ModelRemoved, ModelStored, NotKept

LOGGED = (FillStarted, FillEnded, DigestMismatched, NotKept, ModelStored, ModelRemoved)
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
        case ModelRemoved(name, freed):
            log.info("model removed", name=name.short, freed_bytes=freed)
        case _:
            pass
