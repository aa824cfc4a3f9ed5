"""A whole model into the folder of an Ollama on the same file system: its blobs linked, its manifest written last."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from mirror.errors import CannotLink
from mirror.store.layout import Layout, sync_folder, write_whole
from mirror.values import Descriptor, Manifest, ModelName


def can_link(layout: Layout, folder: Path) -> bool:
    """Say whether blobs of the store can have a second name in a folder: one file system, and ours to write."""
    try:
        same = os.stat(folder).st_dev == os.stat(layout.blobs).st_dev
    except OSError:
        return False
    return same and os.access(folder, os.W_OK | os.X_OK)


def link_model(layout: Layout, folder: Path, name: ModelName, manifest: Manifest, blobs: Iterable[Descriptor]) -> None:
    """Put a model into ``folder``, which is laid out as OLLAMA_MODELS is (docs/protocol.md §2). Blocks.

    A blob that is there with its full size stays as it is. No byte is copied, and nothing there is ever half a model:
    what stops in between leaves blobs that Ollama removes at its next start.

    Raises:
        CannotLink: a blob is not in the store, or the folder cannot be linked into or written.
    """
    try:
        if not folder.is_dir():
            raise CannotLink(f"{folder} is no folder")
        there = folder / "blobs"
        there.mkdir(exist_ok=True)
        for blob in blobs:
            _link(layout.blob(blob.digest), there / blob.digest.filename, blob.size)
        sync_folder(there)
        target = folder / "manifests" / name.host / name.namespace / name.model / name.tag
        write_whole(target, manifest.raw, folder / f".mirror-{uuid4().hex}")
    except OSError as error:
        raise CannotLink(f"{error.filename2 or error.filename or folder}: {error.strerror}") from error


def _link(blob: Path, target: Path, size: int) -> None:
    with suppress(FileNotFoundError):
        if os.stat(target).st_size == size:
            return
    aside = target.with_name(f".mirror-{uuid4().hex}")
    os.link(blob, aside)
    try:
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)  # of two names of one file, rename(2) leaves both
