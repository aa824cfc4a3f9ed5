"""Models out of a folder that Ollama, or another mirror, keeps."""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from mirror.bundles.intake import Imported, Intake, Reserve, opened_intake
from mirror.bundles.needs import demanded
from mirror.bundles.saving import Report
from mirror.bundles.staging import bring
from mirror.errors import BadBundle
from mirror.store import Store
from mirror.store.manifests import read_manifest
from mirror.values import Descriptor, Digest, Invalid, InvalidDigest, InvalidManifest, Manifest, ModelName

_LEVELS = 4
"""host/namespace/model/tag."""


async def import_folder(
    folder: Path, store: Store, reserve: Reserve, report: Report, names: Collection[ModelName] | None = None
) -> Imported:
    """Take in the models in ``folder``, which has ``blobs`` and ``manifests``: all of them, or ``names``, or none.

    Bytes are shared with the folder where the disk can do that, and every blob is hashed where it came to lie. What
    Ollama leaves unfinished and files that begin with a dot are passed over. The folder is only read; blobs that are
    one file with ours afterwards get the present time. On any failure, cancellation included, the store is as it
    was. Once all is proven a failure, as of the disk, may leave whole models or unnamed blobs, and nothing false.

    Raises:
        BadBundle: something in the folder is not what it should be, or cannot be read; the text says where.
        StoreFull: there is no room, or the store cannot be written.
        BrokenStore: a blob that the models share with others was found damaged.
    """
    async with opened_intake(store, reserve) as intake:
        wanted = None if names is None else {name.folded: name for name in names}
        for name, raw in await intake.in_thread(lambda: _manifests(folder, wanted)):
            intake.add_model(name, raw)
        shelf = await intake.in_thread(lambda: _Shelf(folder / "blobs", store))
        needs = await intake.in_thread(lambda: demanded(intake.models, shelf.size, shelf.child))
        new = {digest: size for digest, size in needs.items() if not await intake.has(digest, size)}
        new = {digest: size for digest, size in new.items() if digest in shelf.paths}  # else it went just now
        await intake.cover(new)
        await _bring_all(new, shelf, intake, report)
        return await intake.take_in()


async def _bring_all(blobs: Mapping[Digest, int], shelf: "_Shelf", intake: Intake, report: Report) -> None:
    before, total = 0, sum(blobs.values())
    report(0, total)
    for digest, size in blobs.items():
        steps = bring(shelf.paths[digest], intake.path(digest), digest)
        try:
            while (done := await intake.in_thread(partial(next, steps, None))) is not None:
                report(before + done, total)
        finally:
            await intake.in_thread(steps.close)
        intake.landed(digest, size)
        before += size


class _Shelf:
    """The blobs of a folder, by name and not yet proven, beside those of the store. Blocks."""

    def __init__(self, blobs: Path, store: Store) -> None:
        self._store = store
        self.paths: dict[Digest, Path] = {}
        with _errors_named(blobs):
            for path in sorted(blobs.iterdir()):  # the older ``sha256:hex`` comes last and is not preferred
                with suppress(InvalidDigest):
                    self.paths.setdefault(Digest.parse(path.name), path)

    def size(self, blob: Descriptor) -> int | None:
        """Return a blob's size, in the store if it is right there, else in the folder."""
        stored, path = self._store.blobs.size(blob.digest), self.paths.get(blob.digest)
        return stored if stored == blob.size or path is None else _regular_size(path)

    def child(self, digest: Digest) -> Manifest | None:
        """Return a manifest that an index names."""
        with suppress(OSError, InvalidManifest):
            return read_manifest(self.paths.get(digest, self._store.layout.blob(digest)))
        return None


def _manifests(folder: Path, wanted: Mapping[ModelName, ModelName] | None) -> list[tuple[ModelName, bytes]]:
    base, found = folder / "manifests", []
    for path in _files(base):
        try:
            name = _name(path.relative_to(base).parts)
        except Invalid as error:
            if wanted is None:
                raise BadBundle(f"{path} is not where a manifest can be: {error}") from error
            continue
        if wanted is None or name.folded in wanted:
            found.append((name, _raw(path)))
    lacking = [name.short for key, name in (wanted or {}).items() if key not in {name.folded for name, _ in found}]
    if lacking:
        raise BadBundle(f"not in {base}: {', '.join(lacking)}")
    return found


def _files(base: Path) -> Iterator[Path]:
    """Every file below ``base`` in order, at most a level deeper than manifests are."""

    def refuse(error: OSError) -> None:
        raise BadBundle(f"cannot read {error.filename}: {error.strerror}") from error

    for folder, folders, names in os.walk(base, onerror=refuse, followlinks=True):
        depth = len(Path(folder).relative_to(base).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and depth < _LEVELS)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _name(parts: tuple[str, ...]) -> ModelName:
    if len(parts) != _LEVELS:
        raise InvalidManifest("/".join(parts), "host/namespace/model/tag")
    return ModelName(*parts)


def _raw(path: Path) -> bytes:
    _regular_size(path)
    with _errors_named(path):
        try:
            return read_manifest(path).raw
        except InvalidManifest as error:
            raise BadBundle(f"{path} is no manifest: {error}") from error


def _regular_size(path: Path) -> int:
    with _errors_named(path):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise BadBundle(f"{path} is not a file")
    return found.st_size


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Say in the room's own words that ``path`` cannot be read."""
    try:
        yield
    except OSError as error:
        raise BadBundle(f"cannot read {path}: {error.strerror}") from error
