"""What an Ollama says, as values (api/types.go)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """One model of /api/tags. ``digest`` is the sha256 of its manifest in hex, ``size`` in bytes as written there."""

    name: str
    digest: str
    size: int
    modified_at: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Self:
        """Read a row. Raises KeyError, TypeError, ValueError for what is none."""
        return cls(
            name=str(row["name"]),
            digest=str(row["digest"]),
            size=int(row["size"]),
            modified_at=str(row.get("modified_at", "")),
            details=dict(row.get("details") or {}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningModel:
    """One model of /api/ps: loaded, with so many bytes, ``size_vram`` of them on a graphics card."""

    name: str
    size: int
    size_vram: int
    expires_at: str

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Self:
        """Read a row. Raises KeyError, TypeError, ValueError for what is none."""
        return cls(
            name=str(row["name"]),
            size=int(row.get("size", 0)),
            size_vram=int(row.get("size_vram", 0)),
            expires_at=str(row.get("expires_at", "")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One line of a pull: its text, and of a blob how many of its bytes are there. Ollama leaves zeros out."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0

    @classmethod
    def parse(cls, line: Mapping[str, Any]) -> Self:
        """Read a line. Raises TypeError, ValueError for what is none."""
        return cls(
            status=str(line.get("status", "")),
            digest=str(line.get("digest", "")),
            total=int(line.get("total", 0)),
            completed=int(line.get("completed", 0)),
        )

    def view(self) -> dict[str, object]:
        """Return the line as Ollama writes it."""
        every = {"status": self.status, "digest": self.digest, "total": self.total, "completed": self.completed}
        return {key: value for key, value in every.items() if value or key == "status"}
