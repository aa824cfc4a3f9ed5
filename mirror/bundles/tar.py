"""Tar as bundles use it, block by block: headers written and headers read. Pure.

``tarfile`` reads one header here and never a whole archive: its reader takes any extended header into memory.
"""

import tarfile
from dataclasses import dataclass
from enum import Enum

from mirror.errors import BadBundle

BLOCK = 512
RECORD = 20 * BLOCK
"""tar pads its output to full records."""
MAX_LONG_NAME_BYTES = 4 << 10
MAX_PAX_BYTES = 64 << 10

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MEANING = (b"path", b"linkpath", b"size", b"hdrcharset", b"GNU.sparse")
"""Beginnings of pax keys that would change what is read, and from where."""
_REFUSED = {
    tarfile.LNKTYPE: "a hard link; make the tar with --hard-dereference",
    tarfile.SYMTYPE: "a symbolic link; make the tar with --dereference",
    tarfile.GNUTYPE_LONGLINK: "a link with a long name; make the tar with --dereference",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file; make the tar without --sparse",
}


class Kind(Enum):
    """What a header announces."""

    FILE = "file"
    FOLDER = "folder"
    LONG_NAME = "long name"
    PAX = "pax header"


_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.FOLDER,
    tarfile.GNUTYPE_LONGNAME: Kind.LONG_NAME,
    tarfile.XHDTYPE: Kind.PAX,
    tarfile.XGLTYPE: Kind.PAX,
}
_MOST_BYTES = {Kind.FOLDER: 0, Kind.LONG_NAME: MAX_LONG_NAME_BYTES, Kind.PAX: MAX_PAX_BYTES, Kind.FILE: (1 << 62) - 1}


@dataclass(frozen=True, slots=True)
class Header:
    """One header as read: ``size`` bytes of content follow it, padded to a block."""

    kind: Kind
    path: str
    size: int


def header(path: str, size: int) -> bytes:
    """Return what comes before a file's content; where ``path`` does not fit, with GNU's long name before it."""
    entry = tarfile.TarInfo(path)  # no time and nobody's: the same models give the same bytes
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def padding(size: int, unit: int = BLOCK) -> int:
    """Return how many zero bytes follow ``size`` bytes, up to a full ``unit``."""
    return -size % unit


def read_header(block: bytes, at: int) -> Header | None:
    """Read the header found at byte ``at``; None for a block of zeros.

    Raises:
        BadBundle: it is none, or announces what no bundle has.
    """
    if not block.strip(b"\0"):
        return None
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise BadBundle(f"byte {at} is not the beginning of a tar header: {error}") from error
    kind = _KINDS.get(entry.type)
    if kind is None:
        raise BadBundle(f"{entry.name!r} is {_REFUSED.get(entry.type, f'an entry of type {entry.type!r}')}")
    if entry.size < 0:
        raise BadBundle(f"{entry.name!r} has a negative size")
    if entry.size > _MOST_BYTES[kind]:
        raise BadBundle(f"{entry.name!r} is a {kind.value} of {entry.size} bytes: at most {_MOST_BYTES[kind]} are read")
    return Header(kind, entry.name, entry.size)


def read_long_name(content: bytes) -> str:
    """Return the path that GNU's long name holds."""
    return content.rstrip(b"\0").decode("utf-8", "surrogateescape")


def check_pax(content: bytes) -> None:
    """Raise BadBundle for pax records (``LENGTH KEY=VALUE``) that change a path or a size, or are no records."""
    while content:
        said, _, _ = content.partition(b" ")
        length = int(said) if said.isdigit() and len(said) < 6 else 0
        key, is_pair, _ = content[len(said) + 1 : length].partition(b"=")
        if not is_pair or content[length - 1 : length] != b"\n":
            raise BadBundle("a pax header is not made of records")
        if key.startswith(_MEANING):
            raise BadBundle(f"a pax header changes {key.decode(errors='replace')!r}; make the tar with --format=gnu")
        content = content[length:]


def refuse_compressed(beginning: bytes) -> None:
    """Raise BadBundle where these first bytes are those of a compressed file."""
    for magic, name in _COMPRESSED.items():
        if beginning.startswith(magic):
            raise BadBundle(f"this is compressed with {name}: bundles are plain tar, so decompress it first")
