"""What the store's models say of themselves: their config, their texts, and the heads of their weights."""

import json
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mirror.ollama import BadModelFile, ModelFile, read_model_file
from mirror.store import OpenBlob, Store, StoredManifest
from mirror.threads import in_thread
from mirror.values import Descriptor, Digest

_LAYER = "application/vnd.ollama.image."
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LARGEST_TEXT = 1 << 20
_MOST = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One model: its config (types/model/config.go) and the head of its weights, where they are a GGUF."""

    config: dict[str, Any] = field(default_factory=dict)
    file: ModelFile | None = None

    def details(self) -> dict[str, object]:
        """Return ``details`` as /api/show has it, every text a text."""
        families = self.config.get("model_families")
        said = self._text("file_type")
        measured = self.file.quantisation if self.file else ""
        return {
            "parent_model": "",
            "format": self._text("model_format") or ("gguf" if self.file else ""),
            "family": self._text("model_family") or (self.file.architecture if self.file else ""),
            "families": [str(one) for one in families] if isinstance(families, list) else None,
            "parameter_size": self._text("model_type"),
            "quantization_level": measured if said in ("", "unknown") else said,
        }

    def lengths(self) -> dict[str, int]:
        """Return the two lengths that /api/tags has besides, where the model says them."""
        found = {key: self.config.get(key) for key in ("context_length", "embedding_length")}
        file = self.file
        measured = {key: (value or (file.number(key) if file else None)) for key, value in found.items()}
        return {key: value for key, value in measured.items() if isinstance(value, int) and value > 0}

    def model_info(self) -> dict[str, object]:
        """Return ``model_info``: always an object with an architecture, as programs read it without looking."""
        values: dict[str, object] = {"general.architecture": self._text("model_family")}
        values |= self.file.values if self.file else {}
        values.pop("general.name", None)
        return dict(sorted(values.items()))

    def _text(self, key: str) -> str:
        said = self.config.get(key)
        return said if isinstance(said, str) else ""


class Descriptions:
    """Reads models and remembers what they say, for a manifest never changes. For the event loop's thread; close it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="described")
        self._known: OrderedDict[Digest, Described] = OrderedDict()

    def close(self) -> None:
        """Let go of the thread."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def of(self, stored: StoredManifest) -> Described:
        """Return what a model says of itself; nothing of what cannot be read, and no head where it is no GGUF."""
        known = self._known.get(stored.digest)
        if known is None:
            config: Any = {}
            with suppress(ValueError, RecursionError):
                config = json.loads(next(iter(self.texts(stored, _CONFIG)), "{}"))
            weights = [blob for blob in stored.blobs if blob.media_type == f"{_LAYER}model"]
            file = await self._head(weights[-1]) if weights else None
            known = Described(config=config if isinstance(config, dict) else {}, file=file)
            self._known[stored.digest] = known
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        return known

    def layers(self, stored: StoredManifest, kind: str) -> list[str]:
        """Return the texts of a model's layers of one kind, such as ``license``, in the manifest's order."""
        return self.texts(stored, f"{_LAYER}{kind}")

    def texts(self, stored: StoredManifest, media_type: str) -> list[str]:
        """Return the texts of a model's blobs of a media type; those are left out that are too large for texts."""
        found = [self._read(blob) for blob in stored.blobs if blob.media_type == media_type]
        return [raw.decode("utf-8", "replace") for raw in found if raw is not None]

    def _read(self, blob: Descriptor) -> bytes | None:
        with suppress(OSError):
            raw = self._store.blobs.read(blob.digest, _LARGEST_TEXT)
            return raw if raw is not None else self._store.extra.read(blob.digest, _LARGEST_TEXT)
        return None

    async def _head(self, weights: Descriptor) -> ModelFile | None:
        opened = self._store.open_blob(weights.digest)
        if opened is None:
            return None
        with opened as blob, suppress(BadModelFile, OSError):
            return await in_thread(self._threads, lambda: _read_head(blob))
        return None


def _read_head(blob: OpenBlob) -> ModelFile:
    return read_model_file(lambda at, count: os.pread(blob.fd, count, at))
