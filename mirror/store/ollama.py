"""What an Ollama does in a tree that it shares with us, as far as we must not get in its way (docs/protocol.md §2)."""

import os
import re
import time
from pathlib import Path

from mirror.values import Digest

GRACE_S = 3600.0
"""A blob is an Ollama's business for so long after it was written, whether or not a manifest names it by now."""
AT_WORK_S = 600.0
"""Of a pull that goes on, some file was written within this time: Ollama begins anew where nothing comes."""

_LEFTOVER = re.compile(r"sha256-(?:[0-9a-f]{64}(?:-partial(?:-\d+)?|\.tmp)|\d{1,20})\Z", re.ASCII)
_DIGEST = re.compile(rb"sha256[:-][0-9a-fA-F]{64}")


def is_unfinished(name: str) -> bool:
    """Say whether a file in ``blobs/`` is one that Ollama has not finished, or left behind."""
    return _LEFTOVER.match(name) is not None


def is_ripe(path: Path) -> bool:
    """Say whether a blob is old enough that no pull of an Ollama can have just written it; false of what is not there.

    Ollama leaves files alone for the same time when it tidies up.
    """
    try:
        return time.time() - path.stat().st_mtime >= GRACE_S
    except OSError:
        return False


def mentioned(path: Path, limit: int) -> set[Digest]:
    """Return every digest in the first ``limit`` bytes of a file, whatever it is. Raises OSError.

    A manifest that is just being written, or that only Ollama can read, keeps its blobs too.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        return {Digest.parse(one.decode()) for one in _DIGEST.findall(file.read(limit))}
