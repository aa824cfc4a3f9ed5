"""What is stored, as JSON; the same for the admin API, for commands and for pages."""

import asyncio
import json
from datetime import datetime
from typing import Any

from mirror.db import Ledger
from mirror.fill import Earlier, Fill
from mirror.keep import Keeper, Scrub
from mirror.pulls import Job, Pace, Queue, Worker
from mirror.store import Pins, Store, StoredManifest, census
from mirror.values import Descriptor, Manifest, ModelName
from mirror.web.hiding import Hidden, nothing_hidden

_CONFIG_BYTES = 1 << 20


def model_view(stored: StoredManifest, store: Store, ledger: Ledger, pins: Pins) -> dict[str, Any]:
    """Return one model as a row: sizes in bytes, instants in ISO 8601 with zone, null where unknown.

    ``from`` is the folder of somebody else's that it lies in, which is only read; null for what is in the store.
    """
    use, held = ledger.use(stored.name), ledger.tags.held(stored.name)
    folder = store.extra.folder_of(stored)
    missing = set(store.missing(stored) if folder is None else store.extra.missing(stored))
    return {
        "name": stored.name.short,
        "digest": str(stored.digest),
        "size": stored.size,
        "stored": sum(blob.size for blob in stored.blobs if blob.digest not in missing),
        "complete": not missing,
        "damaged": bool(missing) and store.damaged(stored),
        "pinned": pins.why(stored.name) is not None,
        "held": held is not None and held.digest == stored.digest,
        "blobs": len(stored.blobs),
        "from": folder and str(folder),
        "stored_at": stored.written_at.isoformat(timespec="seconds"),
        "checked_at": _text(use.checked_at),
        "used_at": _text(use.used_at),
        "uses": use.uses,
    }


async def models_view(
    store: Store, ledger: Ledger, pins: Pins, hidden: Hidden = nothing_hidden
) -> list[dict[str, Any]]:
    """Return every model that is not hidden, the newest first; those waiting for blobs and what others have, too."""
    known = {one.name.folded: one for models in (store.extra.models(), store.complete, store.staged) for one in models}
    seen = [one for one in known.values() if not hidden(one.name)]
    newest = sorted(seen, key=lambda one: (one.written_at, str(one.name)), reverse=True)
    return await asyncio.to_thread(lambda: [model_view(one, store, ledger, pins) for one in newest])


async def model_details(name: ModelName, store: Store, ledger: Ledger, pins: Pins) -> dict[str, Any] | None:
    """Return one model with its blobs and what its config says; None when it is not here."""
    stored = store.find(name)
    manifest = store.read(stored) if stored else None
    if stored is None:
        stored = store.extra.find(name)
        manifest = store.extra.manifest(stored) if stored else None
    if stored is None or manifest is None:
        return None
    view = await asyncio.to_thread(model_view, stored, store, ledger, pins)
    view["media_type"] = manifest.media_type
    view["layers"] = [_blob_view(one, store) for one in manifest.blobs]
    view["details"] = details(manifest, store)
    return view


def earlier_view(earlier: Earlier) -> dict[str, Any]:
    """Return a manifest that a tag meant before: its model's bytes, and how many of them would have to be fetched."""
    return {
        "digest": str(earlier.digest),
        "size": earlier.size,
        "lacking": earlier.lacking,
        "replaced_at": _text(earlier.replaced_at),
    }


async def removal_view(name: ModelName, store: Store) -> dict[str, Any] | None:
    """Return what removing a model would free, without doing it; None when it is not here."""
    found = [one for shelf in (store.complete, store.staged) if (one := shelf.find(name))]
    if not found:
        return None
    blobs = {blob.digest for one in found for blob in store.expanded(one)}
    alone = [
        digest
        for digest in blobs
        if all(one in found for shelf in (store.complete, store.staged) for one in shelf.naming(digest))
    ]
    freed = await asyncio.to_thread(lambda: sum(store.blobs.size(digest) or 0 for digest in alone))
    return {"name": found[0].name.short, "freed": freed, "dry_run": True}


async def usage_view(store: Store, keeper: Keeper, scrub: Scrub, hidden: Hidden = nothing_hidden) -> dict[str, Any]:
    """Return what the store takes and may take, in bytes, and how the last scrub went."""
    found, limits = await asyncio.to_thread(census, store.layout), keeper.limits()
    damaged = {one.name for one in store.damaged_models()}
    return {
        "directory": str(store.layout.root),
        "models": len(store.complete),
        "incomplete_models": sum(one.name not in damaged for one in store.staged),
        "damaged_models": sorted(name.short for name in damaged if not hidden(name)),
        "blobs": len(found.blobs),
        "size": sum(one.size for one in found.blobs.values()),
        "partial": sum(one.size for one in found.partials.values()),
        "quarantine": sum(one.size for one in found.quarantine.values()),
        "promised": sum(store.room.coming.values()),
        "max_size": limits.size,
        "disk_size": store.room.capacity(),
        "disk_free": store.room.free(),
        "min_free": limits.free,
        "pins": [str(one) for one in (*keeper.pins.of_settings, *keeper.pins.of_people)],
        "scrub_began_at": _text(scrub.last.begun_at),
        "scrub_ended_at": _text(scrub.last.ended_at),
    }


def pins_view(pins: Pins, store: Store, hidden: Hidden = nothing_hidden) -> dict[str, Any]:
    """Return every pin, who set it, and the models in the store that it pins and that are not hidden."""
    names = sorted({one.name for shelf in (store.complete, store.staged) for one in shelf if not hidden(one.name)})
    return {
        "pins": [
            {
                "pattern": str(pattern),
                "from": "settings" if fixed else "command",
                "models": [name.short for name in names if pattern.matches(name)],
            }
            for fixed, patterns in ((True, pins.of_settings), (False, pins.of_people))
            for pattern in patterns
        ]
    }


def details(manifest: Manifest, store: Store) -> dict[str, Any]:
    """Return what the model's config says of it, in the words of Ollama's API; empty where there is no config yet."""
    digest = manifest.config.digest if manifest.config else None
    raw = store.blobs.read(digest, _CONFIG_BYTES) or store.extra.read(digest, _CONFIG_BYTES) if digest else None
    try:
        config = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        config = {}
    if not isinstance(config, dict) or "model_format" not in config:
        return {}
    return {
        "parent_model": "",
        "format": str(config.get("model_format") or ""),
        "family": str(config.get("model_family") or ""),
        "families": config.get("model_families"),
        "parameter_size": str(config.get("model_type") or ""),
        "quantization_level": str(config.get("file_type") or ""),
    }


def job_view(job: Job, queue: Queue, worker: Worker) -> dict[str, Any]:
    """Return one job of the queue: sizes in bytes, instants in ISO 8601 with zone, null where unknown.

    ``position`` counts from 1 among those that wait, 0 for the others; ``done`` is how many bytes of ``size`` are here.
    """
    progress = None if job.state.over else worker.progress(job)
    return {
        "id": job.id,
        "name": job.name.short,
        "state": job.state.value,
        "position": queue.position(job),
        "priority": job.priority,
        "at_once": job.at_once,
        "requesters": list(job.requesters),
        "size": progress.total if progress is not None else job.size,
        "done": progress.done if progress is not None else None,
        "tries": job.tries,
        "error": job.error,
        "not_before": _text(job.not_before),
        "created_at": _text(job.created_at),
        "started_at": _text(job.started_at),
        "finished_at": _text(job.finished_at),
    }


async def queue_view(queue: Queue, worker: Worker, pace: Pace) -> dict[str, Any]:
    """Return the queue: jobs under way in order, counts of all, and when windows open and close.

    ``rates`` are those in force, in bytes per second, null for no limit: for what nobody reads, and for ``upstream``.
    """
    now = worker.now()
    open_, following = worker.schedule.now(now), worker.schedule.next(now)
    return {
        "jobs": [job_view(job, queue, worker) for job in queue.jobs],
        "counts": {state.value: count for state, count in (await queue.counts()).items()},
        "paused": queue.paused,
        "open": open_ is not None,
        "closes_at": _text(open_.end) if open_ is not None else None,
        "opens_at": _text(following.start) if following is not None else None,
        "rates": {"pulls": pace.ahead, "upstream": pace.upstream},
    }


def fill_view(fill: Fill, store: Store, hidden: Hidden = nothing_hidden) -> dict[str, Any]:
    """Return one running fill: bytes here of its size, bytes fetched, who reads, how many connections.

    ``models`` are those that name the blob, as far as they are known and not hidden.
    """
    names = {one.name for shelf in (store.staged, store.complete) for one in shelf.naming(fill.digest)}
    return {
        "digest": str(fill.digest),
        "models": sorted(name.short for name in names if not hidden(name)),
        "size": fill.size,
        "completed": fill.here,
        "fetched": fill.fetched,
        "readers": fill.readers,
        "connections": fill.lines,
    }


def _text(instant: datetime | None) -> str | None:
    return instant.isoformat(timespec="seconds") if instant else None


def _blob_view(blob: Descriptor, store: Store) -> dict[str, Any]:
    return {
        "digest": str(blob.digest),
        "size": blob.size,
        "media_type": blob.media_type,
        "stored": store.servable(blob.digest) is not None,
    }
