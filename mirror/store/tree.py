"""What the store has, looked at: the index of models, the blobs, and the folders that are only read."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from mirror.store.blobs import BlobStore, OpenBlob
from mirror.store.extra import Extra
from mirror.store.layout import Layout
from mirror.store.manifests import ManifestShelf, StoredManifest, expanded
from mirror.store.recovery import put_aside
from mirror.store.rescan import Rescan
from mirror.store.room import Room
from mirror.store.trash import Trash
from mirror.values import MAX_MANIFEST_BYTES, Descriptor, Digest, InvalidManifest, Manifest, ModelName


class Tree:
    """The half of the Store that looks: which models there are, which blobs, and what they lack.

    ``complete`` holds the models that are whole, ``staged`` the manifests that wait for blobs. For the event loop's
    thread; what it asks of the disk is quick.
    """

    def __init__(self, layout: Layout, also_from: Sequence[Path] = ()) -> None:
        self.layout = layout
        self.room = Room(layout)
        self.trash = Trash(layout, self.room)
        self.blobs = BlobStore(layout, self.trash.take_blob)
        self.complete = ManifestShelf(layout, layout.manifests)
        self.staged = ManifestShelf(layout, layout.staged)
        self.extra = Extra(layout, also_from, self.blobs.size)
        self._rescan = Rescan(layout.manifests, self.complete)

    def find(self, name: ModelName) -> StoredManifest | None:
        """Return what is known of a model: the newer manifest, whether or not its blobs are all here."""
        return self.staged.find(name) or self.complete.find(name)

    def read(self, stored: StoredManifest) -> Manifest | None:
        """Return the manifest of what ``find`` found; None when it has gone meanwhile."""
        shelf = self.staged if self.staged.find(stored.name) is stored else self.complete
        return shelf.read(stored)

    def by_digest(self, digest: Digest) -> Manifest | None:
        """Return a manifest by the digest of its bytes, also one that an index names."""
        for shelf in (self.complete, self.staged):
            stored = shelf.find_digest(digest)
            manifest = shelf.read(stored) if stored else None
            if manifest is not None:
                return manifest
        raw = self.blobs.read(digest, MAX_MANIFEST_BYTES)
        with suppress(InvalidManifest):
            return Manifest.parse(raw) if raw and raw.lstrip()[:1] == b"{" else self.extra.by_digest(digest)
        return None

    def size_of(self, digest: Digest, name: ModelName) -> int | None:
        """Return the size in bytes that a blob has, or shall have by the manifests there are.

        The word of ``name``'s own repository counts first: another's manifest may have it wrong.
        """
        size = self.servable(digest)
        if size is not None:
            return size
        said = [one for shelf in (self.staged, self.complete) for one in shelf.naming(digest)]
        said.sort(key=lambda one: one.name.repository.lower() != name.repository.lower())
        return next((blob.size for one in said[:1] for blob in one.blobs if blob.digest == digest), None)

    def partial_size(self, digest: Digest) -> int | None:
        """Return the size in bytes that an unfinished blob was begun with; None where there is none."""
        try:
            return os.stat(self.layout.partial(digest)).st_size
        except OSError:
            return None

    def servable(self, digest: Digest) -> int | None:
        """Return the size in bytes of a blob that is here, or proven in a folder that is only read; else None."""
        size = self.blobs.size(digest)
        return size if size is not None else self.extra.size(digest)

    def whole_models(self) -> list[StoredManifest]:
        """Return every model that can be served: ours, and of the folders that are only read what we have not."""
        theirs = [one for one in self.extra.models() if self.complete.find(one.name) is None]
        return [*self.complete, *(one for one in theirs if not self.extra.missing(one))]

    def open_blob(self, digest: Digest) -> OpenBlob | None:
        """Open a blob for reading; None when it is neither here nor proven in a folder that is only read.

        One that has another size than every manifest says was changed behind our back: it is put aside, and so
        is not here.
        """
        blob = self.blobs.open(digest)
        if blob is None:
            return self.extra.open(digest)
        naming = [one for shelf in (self.complete, self.staged) for one in shelf.naming(digest)]
        said = {one.size for stored in naming for one in stored.blobs if one.digest == digest}
        if not said or blob.size in said:
            return blob
        blob.close()
        with suppress(OSError):
            self._put_aside(digest)
        return self.extra.open(digest)

    @property
    def mentioned(self) -> frozenset[Digest]:
        """Digests in files of a shared tree that are no manifests to us, but may be to an Ollama."""
        return self._rescan.mentioned

    def unnamed(self, digests: Iterable[Digest]) -> set[Digest]:
        """Return those of ``digests`` that no manifest here names, nor one that an index names, and nobody wants."""
        indexed = {blob.digest for stored in self._indexes() for blob in self.expanded(stored)}
        stay = indexed | self.mentioned | self.blobs.wanted
        return {one for one in digests if one not in stay and not self._named(one)}

    def expanded(self, stored: StoredManifest | Manifest) -> list[Descriptor]:
        """Return every blob of a model: those its manifest names and, for an index, those its manifests name."""
        return expanded(stored, self._child)

    def problem(self) -> str | None:
        """Say why the store cannot be written now, in a phrase; None when it can. Looks at the disk."""
        try:
            with tempfile.TemporaryFile(dir=self.layout.temporary):
                pass
            for folder in (self.layout.blobs, self.layout.manifests):
                os.stat(folder)
                if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                    return f"{folder} cannot be read and written"
        except OSError as error:
            return f"{self.layout.root} cannot be written: {error.strerror}"
        return None

    def missing(self, stored: StoredManifest) -> list[Digest]:
        """Return the blobs a manifest names that are not here with the size it says."""
        return [blob.digest for blob in stored.blobs if self.blobs.size(blob.digest) != blob.size]

    def damaged(self, stored: StoredManifest) -> bool:
        """Say whether it lacks a blob because what was there turned out to be none. Looks at the disk."""
        return any((self.layout.quarantine / digest.filename).exists() for digest in self.missing(stored))

    def damaged_models(self) -> list[StoredManifest]:
        """Return the models that are damaged; of one name the newer manifest."""
        aside: set[Digest] = set()
        with suppress(OSError), os.scandir(self.layout.quarantine) as entries:
            for entry in entries:
                with suppress(ValueError):
                    aside.add(Digest.parse(entry.name))
        found: dict[ModelName, StoredManifest] = {}
        for shelf in (self.complete, self.staged):
            for digest in aside:
                if self.blobs.size(digest) is None:
                    found |= {stored.name.folded: stored for stored in shelf.naming(digest)}
        return [found[name] for name in sorted(found)]

    def _named(self, digest: Digest) -> bool:
        return self.complete.names(digest) or self.staged.names(digest)

    def _child(self, digest: Digest) -> Manifest | None:
        raw = self.blobs.read(digest, MAX_MANIFEST_BYTES)
        with suppress(InvalidManifest):
            return Manifest.parse(raw) if raw else None
        return None

    def _indexes(self) -> list[StoredManifest]:
        return [*self.complete.indexes(), *self.staged.indexes()]

    def _put_aside(self, digest: Digest) -> None:
        self.room.proven -= put_aside(self.layout, digest)
