"""What is stored, as JSON; the same for the admin API, for commands and for pages."""

import asyncio
import json
from typing import Any

from mirror.db import Ledger
from mirror.fill import Fill
from mirror.store import Store, StoredManifest
from mirror.values import Descriptor, Manifest, ModelName

_CONFIG_BYTES = 1 << 20


def model_view(stored: StoredManifest, store: Store, ledger: Ledger) -> dict[str, Any]:
    """Return one model as a row: sizes in bytes, instants in ISO 8601 with zone, null where unknown."""
    use = ledger.use(stored.name)
    missing = set(store.missing(stored))
    return {
        "name": stored.name.short,
        "digest": str(stored.digest),
        "size": stored.size,
        "stored": sum(blob.size for blob in stored.blobs if blob.digest not in missing),
        "complete": not missing,
        "blobs": len(stored.blobs),
        "stored_at": stored.written_at.isoformat(timespec="seconds"),
        "checked_at": use.checked_at and use.checked_at.isoformat(timespec="seconds"),
        "used_at": use.used_at and use.used_at.isoformat(timespec="seconds"),
        "uses": use.uses,
    }


async def models_view(store: Store, ledger: Ledger) -> list[dict[str, Any]]:
    """Return every model, the newest first; those still waiting for blobs among them."""
    known = {one.name.folded: one for shelf in (store.complete, store.staged) for one in shelf}
    newest = sorted(known.values(), key=lambda one: (one.written_at, str(one.name)), reverse=True)
    return await asyncio.to_thread(lambda: [model_view(one, store, ledger) for one in newest])


async def model_details(name: ModelName, store: Store, ledger: Ledger) -> dict[str, Any] | None:
    """Return one model with its blobs and what its config says; None when it is not here."""
    stored = store.find(name)
    manifest = store.read(stored) if stored else None
    if stored is None or manifest is None:
        return None
    view = await asyncio.to_thread(model_view, stored, store, ledger)
    view["media_type"] = manifest.media_type
    view["layers"] = [_blob_view(one, store) for one in manifest.blobs]
    view["details"] = details(manifest, store)
    return view


def details(manifest: Manifest, store: Store) -> dict[str, Any]:
    """Return what the model's config says of it, in the words of Ollama's API; empty where there is no config yet."""
    raw = store.blobs.read(manifest.config.digest, _CONFIG_BYTES) if manifest.config else None
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


def fill_view(fill: Fill) -> dict[str, Any]:
    """Return one running fill: bytes here of its size, bytes fetched, who reads, how many connections."""
    return {
        "digest": str(fill.digest),
        "size": fill.size,
        "completed": fill.here,
        "fetched": fill.fetched,
        "readers": fill.readers,
        "connections": fill.lines,
    }


def _blob_view(blob: Descriptor, store: Store) -> dict[str, Any]:
    return {
        "digest": str(blob.digest),
        "size": blob.size,
        "media_type": blob.media_type,
        "stored": store.blobs.size(blob.digest) is not None,
    }
