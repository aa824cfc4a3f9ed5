"""Making the tree keep its promises again, whatever ended the process before."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from mirror.events import ModelReplaced
from mirror.faultpoints import passing
from mirror.store.layout import Layout
from mirror.store.manifests import ManifestShelf, StoredManifest
from mirror.store.partial import tidy
from mirror.values import Digest, Manifest, ModelName


def recover(
    layout: Layout,
    complete: ManifestShelf,
    staged: ManifestShelf,
    sizes: dict[Digest, int],
    replaced: list[ModelReplaced],
) -> list[str]:
    """Load both shelves and move what is not whole from the complete models to the staged ones. Blocks.

    ``sizes`` are those of the blobs there are, in bytes; what turns out to be none is taken out of it.
    Returns a sentence for each thing that was not right; ``replaced`` gets what is news to those who were not there
    yet. A full disk stops only the moves: a model that could not be
    staged is fetched again when asked for. A tree shared with an Ollama is left as it is: the model may be its, and
    it fetches what it lacks by itself. Raises OSError where nothing can be written.
    """
    rmtree(layout.temporary, ignore_errors=True)
    passing("recover.emptied")
    layout.temporary.mkdir(exist_ok=True)
    tidy(layout)
    for base in (layout.staged,) if layout.shared else (layout.manifests, layout.staged):
        _drop_empty(base)
    passing("recover.tidied")
    problems = [f"{path} {problem}" for shelf in (complete, staged) for path, problem in shelf.load()]
    for stored in complete:
        lacking = _lacking(stored, sizes)
        if lacking and not layout.shared:
            for digest in _demote(stored, lacking, layout, complete, staged):
                sizes.pop(digest, None)
        if lacking:
            lost = f"lacks {len(lacking)} of its blobs; it is fetched again when asked for"
            problems.append(f"{stored.name.short} {lost}")
    for stored in staged:
        manifest = staged.read(stored)
        theirs = layout.shared and complete.find(stored.name) is not None  # whose that is cannot be said here
        if manifest is not None and not theirs and not _lacking(stored, sizes):
            with suppress(OSError):
                _complete(stored.name, manifest, complete, replaced)
                staged.remove(stored.name)
    return problems


def _complete(name: ModelName, manifest: Manifest, complete: ManifestShelf, replaced: list[ModelReplaced]) -> None:
    """A model that waited is whole: let it have its name. Raises OSError."""
    known = complete.find(name)
    former = complete.read(known) if known else None
    complete.write(name, manifest)
    complete.note(name, manifest)
    if former is not None and former.digest != manifest.digest:
        replaced.append(ModelReplaced(name, former, manifest))


def _lacking(stored: StoredManifest, sizes: Mapping[Digest, int]) -> list[Digest]:
    return [blob.digest for blob in stored.blobs if sizes.get(blob.digest) != blob.size]


def put_aside(layout: Layout, digest: Digest) -> int:
    """Move what has a blob's name and is none to quarantine; return its bytes. Raises OSError."""
    path, aside = layout.blob(digest), layout.quarantine / digest.filename
    try:
        size = path.stat().st_size
        path.rename(aside)
        passing("aside.renamed")
    except FileNotFoundError:
        return 0
    os.utime(aside)  # from now on it is kept for a while to be looked at
    return size


def _demote(
    stored: StoredManifest, lacking: list[Digest], layout: Layout, complete: ManifestShelf, staged: ManifestShelf
) -> list[Digest]:
    """A complete model lacks blobs: stage it again, and put aside what has a blob's name and is none; return those.

    A blob that another manifest names with the size it has is one: then this manifest is wrong.
    """
    manifest = complete.read(stored)
    if manifest is not None and staged.find(stored.name) is None:
        with suppress(OSError):
            staged.write(stored.name, manifest)
            staged.note(stored.name, manifest)
    said, aside = {(blob.digest, blob.size) for shelf in (complete, staged) for blob in shelf.blobs()}, []
    for digest in lacking:
        with suppress(FileNotFoundError):
            if (digest, layout.blob(digest).stat().st_size) not in said:
                put_aside(layout, digest)
                aside.append(digest)
    complete.remove(stored.name)  # last: as long as it is there, the next start does this again
    passing("recover.demoted")
    return aside


def _drop_empty(base: Path) -> None:
    """Remove the folders below ``base`` that a removed manifest left empty, when there was no time for it."""
    for folder, _, _ in os.walk(base, topdown=False):
        if folder != str(base):
            with suppress(OSError):  # nearly always: it is not empty
                os.rmdir(folder)
