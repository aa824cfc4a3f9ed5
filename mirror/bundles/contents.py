"""``mirror-bundle.json`` and ``SHA256SUMS``: what a bundle says of itself."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from mirror.bundles.members import FORMAT, require_format, sized
from mirror.bundles.places import Own
from mirror.bundles.tar import BLOCK, Kind, read_header, refuse_compressed
from mirror.errors import BadBundle
from mirror.values import Digest, Invalid, ModelName

MAX_OWN_BYTES = 16 << 20
"""Of each of the two files; room for as many lines as a bundle may have blobs."""
MAX_BLOBS = 100_000
_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model in a bundle: ``digest`` of its manifest, ``size`` in bytes as Ollama shows it."""

    name: ModelName
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What ``mirror-bundle.json`` says: the models, the blobs in order with their sizes in bytes, and what is left out.

    ``left_out`` are blobs the models need and whoever imports is said to have.
    """

    models: tuple[Model, ...]
    blobs: Mapping[Digest, int]
    left_out: frozenset[Digest]

    def text(self) -> bytes:
        """Return the file's bytes: for one thing always the same, so without a time."""
        said = {
            "format": FORMAT,
            "models": [{"name": str(one.name), "digest": str(one.digest), "size": one.size} for one in self.models],
            "blobs": [{"digest": str(digest), "size": size} for digest, size in self.blobs.items()],
            "left_out": [str(digest) for digest in sorted(self.left_out)],
        }
        return json.dumps(said, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read the file's bytes.

        Raises:
            BadBundle: it is something else, or of a newer format.
        """
        try:
            said: dict[str, Any] = json.loads(text)
            require_format(said["format"])
            return cls(
                models=tuple(
                    Model(
                        name=ModelName.parse(one["name"]), digest=Digest.parse(one["digest"]), size=sized(one["size"])
                    )
                    for one in said["models"]
                ),
                blobs={Digest.parse(one["digest"]): sized(one["size"]) for one in said["blobs"]},
                left_out=frozenset(Digest.parse(one) for one in said["left_out"]),
            )
        except (Invalid, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadBundle(f"{Own.CONTENTS.value} does not say what a bundle holds: {error}") from error


def sums(files: Iterable[tuple[str, Digest]]) -> bytes:
    """Return the bytes of ``SHA256SUMS``, as ``sha256sum -c`` reads it."""
    return b"".join(f"{digest.hex}  {path}\n".encode() for path, digest in files)


def parse_sums(text: bytes) -> dict[str, Digest]:
    """Read ``SHA256SUMS``, by path. Raises BadBundle."""
    found = {}
    for line in text.decode("ascii", "replace").splitlines():
        match = _SUM.match(line)
        if match is None:
            raise BadBundle(f"{Own.SUMS.value} has a line that sha256sum does not write: {line[:80]!r}")
        found[match[2]] = Digest(match[1])
    return found


def read_since(path: Path) -> frozenset[Digest]:
    """Return the blobs that whoever imported the bundle at ``path`` has: its own, and those it left out. Blocks.

    Only the first file in it is read.

    Raises:
        BadBundle: it is no bundle, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            contents = Contents.parse(_first_file(file))
    except OSError as error:
        raise BadBundle(f"cannot read {path}: {error.strerror}") from error
    except BadBundle as error:
        raise BadBundle(f"{path} is not a bundle: {error}") from error
    return contents.left_out | contents.blobs.keys()


def _first_file(file: BinaryIO) -> bytes:
    block = file.read(BLOCK)
    refuse_compressed(block)
    head = read_header(block, 0) if len(block) == BLOCK else None
    if head is None or head.kind is not Kind.FILE or head.path != Own.CONTENTS.value:
        raise BadBundle(f"it does not begin with {Own.CONTENTS.value}")
    if head.size > MAX_OWN_BYTES:
        raise BadBundle(f"its {Own.CONTENTS.value} has {head.size} bytes: at most {MAX_OWN_BYTES} are read")
    return file.read(head.size)
