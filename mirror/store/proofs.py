"""What files of others were found to hash to, so that a restart need not hash them again."""

import json
from collections.abc import Callable
from pathlib import Path

from mirror.store.layout import write_whole
from mirror.store.stamp import Stamp
from mirror.values import Digest, InvalidDigest


class Proofs:
    """Digests by path and stamp: a file that has changed is another one. ``save`` blocks; else for one thread.

    What was found wrong is remembered too. A file of proofs that cannot be read is none: all is hashed again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[Path, tuple[Stamp, Digest]] = _read(path)
        self.changed = False

    def of(self, path: Path, stamp: Stamp) -> Digest | None:
        """Return what the file hashes to; None where this very file was not hashed."""
        known = self._known.get(path)
        return known[1] if known is not None and known[0] == stamp else None

    def note(self, path: Path, stamp: Stamp, digest: Digest) -> None:
        """Remember what a file was found to hash to."""
        self._known[path] = (stamp, digest)
        self.changed = True

    def drop(self, gone: Callable[[Path], bool]) -> None:
        """Forget the files that are gone."""
        self._known = {path: known for path, known in self._known.items() if not gone(path)}

    def save(self, temporary: Path) -> None:
        """Write all down. Raises OSError."""
        self.changed = False
        said = {
            str(path): [stamp.size, stamp.mtime_ns, stamp.inode, digest.hex]
            for path, (stamp, digest) in tuple(self._known.items())
        }
        write_whole(self._path, json.dumps(said, indent=0).encode(), temporary)


def _read(path: Path) -> dict[Path, tuple[Stamp, Digest]]:
    try:
        said = json.loads(path.read_bytes())
        return {
            Path(one): (Stamp(int(size), int(mtime_ns), int(inode)), Digest.parse(f"sha256:{digest}"))
            for one, (size, mtime_ns, inode, digest) in said.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, InvalidDigest):
        return {}
