"""The name of a blob: the sha256 of its bytes."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from mirror.values.invalid import InvalidDigest

_PATTERN = re.compile(r"sha256[:-]([0-9a-fA-F]{64})\Z", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest; ``hex`` is 64 lower-case hexadecimal digits."""

    hex: str

    def __hash__(self) -> int:  # a text remembers its own; stores have a hundred thousand of these in sets
        return hash(self.hex)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``sha256:HEX`` or, as Ollama also accepts, ``sha256-HEX``; letter case does not matter.

        Raises:
            InvalidDigest: for any other text, other algorithms included.
        """
        match = _PATTERN.match(text)
        if match is None:
            raise InvalidDigest(text, "sha256: and 64 hexadecimal digits")
        return cls(match[1].lower())

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Return the digest of ``content``."""
        return cls(sha256(content).hexdigest())

    @property
    def short(self) -> str:
        """The first 12 digits, as Ollama shows a model's id."""
        return self.hex[:12]

    @property
    def filename(self) -> str:
        """The blob's name in a folder that Ollama can read: ``sha256-HEX``."""
        return f"sha256-{self.hex}"

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
