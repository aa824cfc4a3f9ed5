"""What an Ollama does to its models folder, step by step as in its source (docs/protocol.md §2)."""

import os
import time
from pathlib import Path

from mirror.values import Digest, Manifest, ModelName
from tests.stored import CONFIG, manifest_of

HOUR_S = 3600.0


def manifest_path(folder: Path, name: ModelName) -> Path:
    """Where it keeps a model's manifest."""
    return folder.joinpath("manifests", name.host, name.namespace, name.model, name.tag)


def blob(folder: Path, content: bytes) -> Path:
    """Where it keeps a blob."""
    return folder / "blobs" / Digest.of(content).filename


def ollama_pulls(folder: Path, name: ModelName, *layers: bytes, hours_ago: float = 0) -> Manifest:
    """Write each blob beside its name and rename it, the manifest at last; all of it so long ago."""
    for content in (*layers, CONFIG):
        path = blob(folder, content)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}-partial")
            partial.write_bytes(content)
            partial.rename(path)
            age(path, hours_ago)
    manifest = manifest_of(*layers)
    path = manifest_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest.raw)
    age(path, hours_ago)
    return manifest


def ollama_deletes(folder: Path, name: ModelName, *layers: bytes) -> None:
    """Remove the manifest, the folders it leaves empty, and then the blobs."""
    path = manifest_path(folder, name)
    path.unlink()
    for above in list(path.parents)[:4]:
        if any(above.iterdir()):
            break
        above.rmdir()
    for content in layers:
        blob(folder, content).unlink()


def age(path: Path, hours: float) -> None:
    """Say of a file that it was written so long ago; a file of just now stays as it is."""
    if hours:
        then = time.time() - hours * HOUR_S
        os.utime(path, (then, then))
