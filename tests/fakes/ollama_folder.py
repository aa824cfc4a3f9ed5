"""The folder of a fake Ollama, laid out as OLLAMA_MODELS is (docs/protocol.md §2), and what Ollama does in it."""

import json
import os
import shutil
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from mirror.demo.model import CONFIG_TYPE, MODEL_TYPE, manifest_bytes
from mirror.values import Descriptor, Digest, Manifest, ModelName

LAYER = "application/vnd.ollama.image."


@dataclass(frozen=True)
class ModelsFolder:
    """Manifests and blobs of one Ollama. Everything blocks, for it is small."""

    root: Path

    def blob(self, digest: Digest) -> Path:
        """Where a blob lies."""
        return self.root / "blobs" / digest.filename

    def manifest(self, name: ModelName) -> Path:
        """Where a manifest lies."""
        return self.root / "manifests" / name.host / name.namespace / name.model / name.tag

    @property
    def blobs(self) -> set[str]:
        """The names of all blobs."""
        folder = self.root / "blobs"
        return set(os.listdir(folder)) if folder.is_dir() else set()

    def add(self, text: str, weights: bytes = b"weights", **texts: str) -> Manifest:
        """Hold a model; ``texts`` are further layers by their kind, such as ``template``."""
        config = json.dumps({"model_format": "gguf", "model_family": "llama", "model_type": "8.0B"}).encode()
        layers = [self._described(weights, MODEL_TYPE)]
        layers += [self._described(content.encode(), f"{LAYER}{kind}") for kind, content in texts.items()]
        raw = manifest_bytes(self._described(config, CONFIG_TYPE), layers)
        path = self.manifest(ModelName.parse(text))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return Manifest.parse(raw)

    def names(self) -> list[ModelName]:
        """Every model, the newest first, as /api/tags lists them."""
        base = self.root / "manifests"
        paths = sorted(base.glob("*/*/*/*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [ModelName(*path.relative_to(base).parts) for path in paths]

    def find(self, text: str) -> ModelName | None:
        """Return the model meant, in the letter case it has here (server/routes.go, getExistingName)."""
        wanted = ModelName.parse(text).folded
        return next((name for name in self.names() if name.folded == wanted), None)

    def row(self, name: ModelName) -> dict[str, Any]:
        """What /api/tags says of a model."""
        path = self.manifest(name)
        raw = path.read_bytes()
        manifest = Manifest.parse(raw)
        config = json.loads(self.blob(manifest.config.digest).read_bytes()) if manifest.config else {}
        return {
            "name": name.short,
            "model": name.short,
            "modified_at": datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(),
            "size": manifest.size,
            "digest": sha256(raw).hexdigest(),
            "details": {
                "parent_model": "",
                "format": config.get("model_format", ""),
                "family": config.get("model_family", ""),
                "families": config.get("model_families"),
                "parameter_size": config.get("model_type", ""),
                "quantization_level": config.get("file_type", ""),
            },
        }

    def shown(self, name: ModelName) -> dict[str, Any]:
        """What /api/show says of a model."""
        row = self.row(name)
        manifest = Manifest.parse(self.manifest(name).read_bytes())
        texts = {
            blob.media_type.removeprefix(LAYER): self.blob(blob.digest).read_text("utf-8", "replace")
            for blob in manifest.layers
            if blob.media_type != MODEL_TYPE
        }
        return {
            "modelfile": f"# Modelfile\nFROM {name.short}\n",
            **{kind: texts[kind] for kind in ("license", "template", "system") if kind in texts},
            "details": row["details"],
            "model_info": {"general.architecture": row["details"]["family"]},
            "capabilities": ["completion"],
            "modified_at": row["modified_at"],
        }

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """Give a model another name: only the manifest is copied (server/images.go, CopyModel)."""
        target = self.manifest(destination)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.manifest(source), target)

    def delete(self, name: ModelName) -> None:
        """Remove a name, the folders it leaves empty, and at once every blob that no manifest names any more."""
        path = self.manifest(name)
        gone = {blob.digest for blob in Manifest.parse(path.read_bytes()).blobs}
        path.unlink()
        with suppress(OSError):
            for folder in list(path.parents)[:3]:
                folder.rmdir()
        named = {
            one.digest for other in self.names() for one in Manifest.parse(self.manifest(other).read_bytes()).blobs
        }
        for digest in gone - named:
            self.blob(digest).unlink(missing_ok=True)

    async def take_blob(self, digest: Digest, chunks: AsyncIterable[bytes]) -> Digest:
        """Write a blob as it comes; return what it hashes to, under which it is kept where that is ``digest``."""
        (self.root / "blobs").mkdir(parents=True, exist_ok=True)
        unnamed, hasher = self.root / "blobs" / f"sha256-{uuid4().int}", sha256()
        try:
            with unnamed.open("wb") as file:
                async for chunk in chunks:
                    file.write(chunk)
                    hasher.update(chunk)
            got = Digest(hasher.hexdigest())
            if got == digest:
                unnamed.rename(self.blob(digest))
        finally:
            unnamed.unlink(missing_ok=True)
        return got

    def _described(self, content: bytes, media_type: str) -> Descriptor:
        digest = Digest.of(content)
        (self.root / "blobs").mkdir(parents=True, exist_ok=True)
        self.blob(digest).write_bytes(content)
        return Descriptor(digest, len(content), media_type)
