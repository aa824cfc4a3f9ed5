"""Where everything lies on disk: the one place that turns names into paths."""

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.errors import StoreUnusable
from mirror.faultpoints import passing
from mirror.values import Digest, Invalid, ModelName

_BLOB = re.compile(r"sha256-([0-9a-f]{64})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tree of ``root`` is byte for byte what Ollama calls OLLAMA_MODELS; ``state`` lies outside it.

    Ollama deletes at its start what it does not know inside ``blobs/`` and stops listing for what it does not
    know inside ``manifests/`` (docs/protocol.md §2), so nothing of ours is ever put there. ``shared``: such an
    Ollama has the tree as its own now, so not all that is in it was written by us.
    """

    root: Path
    state: Path
    shared: bool = False

    @property
    def blobs(self) -> Path:
        """Proven blobs, one flat folder."""
        return self.root / "blobs"

    @property
    def manifests(self) -> Path:
        """Manifests of complete models: host/namespace/model/tag."""
        return self.root / "manifests"

    @property
    def partials(self) -> Path:
        """Blobs on their way in, each with the record of what is there."""
        return self.state / "partial"

    @property
    def staged(self) -> Path:
        """Manifests whose blobs are not all here, in the same four levels."""
        return self.state / "staged"

    @property
    def quarantine(self) -> Path:
        """What carried a blob's name and was none."""
        return self.state / "quarantine"

    @property
    def temporary(self) -> Path:
        """Files being written before they are renamed into place; emptied at every start."""
        return self.state / "tmp"

    def blob(self, digest: Digest) -> Path:
        """Where the proven blob is."""
        return self.blobs / digest.filename

    def partial(self, digest: Digest) -> Path:
        """Where the blob grows: a sparse file of its full size."""
        return self.partials / digest.hex

    def record(self, digest: Digest) -> Path:
        """Where it is written which ranges of the partial are on disk."""
        return self.partials / f"{digest.hex}.json"

    def manifest(self, name: ModelName) -> Path:
        """Where a complete model's manifest is."""
        return self.manifests.joinpath(name.host, name.namespace, name.model, name.tag)

    def staged_manifest(self, name: ModelName) -> Path:
        """Where a manifest waits for its blobs."""
        return self.staged.joinpath(name.host, name.namespace, name.model, name.tag)

    def make(self) -> None:
        """Create what is missing, and check that a rename can carry files from ``state`` into the tree.

        Raises:
            StoreUnusable: a folder cannot be made or written, one of the two lies inside a folder of the other
                that is not kept for it, or they lie on different file systems.
        """
        tree = (self.blobs, self.manifests)
        ours = (self.partials, self.staged, self.quarantine, self.temporary)
        self.check_apart()
        try:
            self.root.mkdir(exist_ok=True)
            self.state.mkdir(mode=0o700, exist_ok=True)
            for folder in (*tree, *ours):
                _make_folders(folder, self.share)
        except OSError as error:
            raise StoreUnusable(f"cannot make {error.filename}: {error.strerror}") from error
        for folder in (*tree, *ours):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise StoreUnusable(f"cannot write in {folder}")
        if len({folder.stat().st_dev for folder in (*tree, *ours)}) > 1:
            raise StoreUnusable(f"{self.state} must be on the same file system as {self.root}")

    def check_apart(self) -> None:
        """Raise StoreUnusable where one of the two lies inside a folder of the other that is not kept for it."""
        _apart(self.state, (self.blobs, self.manifests))
        _apart(self.root, (self.partials, self.staged, self.quarantine, self.temporary))

    def share(self, made: int | Path) -> None:
        """Where the root is its group's to write, so is what was ``made`` below: a path or an open file.

        Else it stays as the umask made it, which is how Ollama leaves its own. What cannot be done is not needed by us.
        """
        with suppress(OSError):
            root, found = os.stat(self.root), os.stat(made)
            if root.st_mode & stat.S_IWGRP:
                if found.st_gid != root.st_gid:  # a partial was made where no setgid bit says whose it is
                    os.chown(made, -1, root.st_gid)
                os.chmod(made, stat.S_IMODE(found.st_mode) | (0o775 if stat.S_ISDIR(found.st_mode) else 0o664))

    def names(self, base: Path) -> Iterator[ModelName]:
        """Yield the names of the manifests below ``base``; what is not a name is passed over."""
        with suppress(FileNotFoundError):
            for path in sorted(base.glob("*/*/*/*")):
                with suppress(Invalid, OSError):
                    if path.is_file():
                        yield ModelName(*path.relative_to(base).parts)


def blob_files(folder: Path) -> Iterator[tuple[Digest, os.stat_result]]:
    """Yield the files in ``folder`` that have a blob's name, in no order; what cannot be looked at is passed over.

    There may be a hundred thousand, and a start waits for them: each is looked at once. Raises OSError where the
    folder cannot be listed; one that is not there is empty.
    """
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = _BLOB.match(entry.name)
            if name is not None:
                with suppress(OSError):
                    found = entry.stat()
                    if stat.S_ISREG(found.st_mode):
                        yield Digest(name[1]), found


def _apart(folder: Path, others: tuple[Path, ...]) -> None:
    """Refuse ``folder`` where what is tidied up in one of ``others`` would take it along."""
    for other in others:
        if folder.resolve().is_relative_to(other.resolve()):
            raise StoreUnusable(f"{folder} cannot be inside {other}")


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a loss of power (fsync of a directory)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _nobody(_: int | Path) -> None:
    pass


def write_whole(target: Path, content: bytes, temporary: Path, share: Callable[[int | Path], None] = _nobody) -> None:
    """Put ``content`` at ``target`` so that any reader, and any crash, sees the old file or all of the new one.

    Missing folders on the way are made. ``share`` is called with each of them, and with the file before it gets its
    name. Raises OSError; the target is then untouched.
    """
    _make_folders(target.parent, share)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            passing("write.begun")
            file.write(content)
            file.flush()
            share(file.fileno())
            os.fsync(file.fileno())
        passing("write.durable")
        os.replace(temporary, target)
        passing("write.named")
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(target.parent)
    passing("write.done")


def _make_folders(folder: Path, share: Callable[[int | Path], None]) -> None:
    """Make a folder and those above it that are missing. Raises OSError."""
    if not folder.is_dir():
        if folder.parent != folder:
            _make_folders(folder.parent, share)
        folder.mkdir(exist_ok=True)
        passing("folder.made")
        share(folder)
