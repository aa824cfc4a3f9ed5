"""How a file is known again without reading it."""

import os
import time
from dataclasses import dataclass
from typing import Self

_SETTLED_NS = 2_000_000_000
"""A file may be written twice within one tick of its file system's clock; one this old was not."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What of a file changes with its content: its size in bytes, when it was written (ns), and which file it is."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """Take it from what stat says."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)

    @property
    def settled(self) -> bool:
        """Whether a change from now on would show; false of a file that was written only just now."""
        return time.time_ns() - self.mtime_ns > _SETTLED_NS
