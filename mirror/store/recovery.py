"""Making the tree keep its promises again, whatever ended the process before."""

import os
from collections.abc import Callable
from contextlib import suppress
from shutil import rmtree

from mirror.store.layout import Layout
from mirror.store.manifests import ManifestShelf, StoredManifest
from mirror.store.partial import tidy
from mirror.values import Digest

Missing = Callable[[StoredManifest], list[Digest]]


def recover(layout: Layout, complete: ManifestShelf, staged: ManifestShelf, missing: Missing) -> list[str]:
    """Load both shelves and move what is not whole from the complete models to the staged ones. Blocks.

    Returns a sentence for each thing that was not right. A full disk stops only the moves: a model that could not be
    staged is fetched again when asked for. Raises OSError where nothing can be written.
    """
    rmtree(layout.temporary, ignore_errors=True)
    layout.temporary.mkdir(exist_ok=True)
    tidy(layout)
    problems = [f"{path} {problem}" for shelf in (complete, staged) for path, problem in shelf.load()]
    for stored in complete:
        lacking = missing(stored)
        if lacking:
            _demote(stored, lacking, layout, complete, staged)
            lost = f"lacks {len(lacking)} of its blobs; it is fetched again when asked for"
            problems.append(f"{stored.name.short} {lost}")
    for stored in staged:
        manifest = staged.read(stored)
        if manifest is not None and not missing(stored):
            with suppress(OSError):
                complete.write(stored.name, manifest)
                complete.note(stored.name, manifest)
                staged.remove(stored.name)
    return problems


def put_aside(layout: Layout, digest: Digest) -> int:
    """Move what has a blob's name and is none to quarantine; return its bytes. Raises OSError."""
    path, aside = layout.blob(digest), layout.quarantine / digest.filename
    try:
        size = path.stat().st_size
        path.rename(aside)
    except FileNotFoundError:
        return 0
    os.utime(aside)  # from now on it is kept for a while to be looked at
    return size


def _demote(
    stored: StoredManifest, lacking: list[Digest], layout: Layout, complete: ManifestShelf, staged: ManifestShelf
) -> None:
    """A complete model lacks blobs: stage it again, and put aside what has a blob's name and is none.

    A blob that another manifest names with the size it has is one: then this manifest is wrong.
    """
    manifest = complete.read(stored)
    if manifest is not None and staged.find(stored.name) is None:
        with suppress(OSError):
            staged.write(stored.name, manifest)
            staged.note(stored.name, manifest)
    complete.remove(stored.name)
    sizes = {(blob.digest, blob.size) for shelf in (complete, staged) for blob in shelf.blobs()}
    for digest in lacking:
        with suppress(FileNotFoundError):
            if (digest, layout.blob(digest).stat().st_size) not in sizes:
                put_aside(layout, digest)
