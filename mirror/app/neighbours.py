"""Which Ollamas run on this machine, and with what environment. Reads /proc and systemd's units, nothing else."""

import os
import pwd
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC, UNITS = Path("/proc"), Path("/etc/systemd/system")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One Ollama: how to name it to a person, and its environment as far as it could be read (None: not at all)."""

    who: str
    environment: Mapping[str, str] | None

    @property
    def models(self) -> Path | None:
        """Its OLLAMA_MODELS, or where that is by default (envconfig/config.go); None where that cannot be told."""
        if self.environment is None:
            return None
        if said := _cleaned(self.environment.get("OLLAMA_MODELS", "")):
            return Path(said)
        home = self.environment.get("HOME")
        return Path(home) / ".ollama" / "models" if home else None

    @property
    def prunes(self) -> bool:
        """Whether it deletes at its start what no manifest names (OLLAMA_NOPRUNE; what is no word for no is a yes)."""
        said = _cleaned((self.environment or {}).get("OLLAMA_NOPRUNE", ""))
        return said in ("", "0", "f", "F", "false", "FALSE", "False")


def running(proc: Path = PROC) -> list[Neighbour]:
    """Return the Ollamas that serve on this machine now; of other users' the environment cannot be read."""
    found = []
    for folder in sorted(proc.glob("[0-9]*")):
        with suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if (folder / "comm").read_text().strip() == "ollama" and {b"serve", b"start"} & set(arguments):
                found.append(Neighbour(f"the Ollama with process id {folder.name}", _environment(folder)))
    return found


def installed(units: Path = UNITS) -> Neighbour | None:
    """Return the Ollama that systemd starts, by its unit and what overrides it; None where there is none."""
    environment: dict[str, str] = {}
    files = [units / "ollama.service", *sorted((units / "ollama.service.d").glob("*.conf"))]
    there = False
    for file in files:
        with suppress(OSError):
            for key, value in _settings(file.read_text("utf-8", "replace")):
                if key == "Environment":
                    environment |= _assignments(value)
                elif key == "User":
                    environment.setdefault("HOME", _home(value))
            there = True
    return Neighbour("the Ollama of ollama.service", environment) if there else None


def _environment(folder: Path) -> dict[str, str] | None:
    try:
        said = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return dict(os.fsdecode(one).split("=", 1) for one in said if b"=" in one)


def _settings(unit: str) -> Iterator[tuple[str, str]]:
    for line in unit.replace("\\\n", " ").splitlines():
        key, is_one, value = line.strip().partition("=")
        if is_one and not key.startswith(("#", ";")):
            yield key.strip(), value.strip()


def _assignments(value: str) -> dict[str, str]:
    try:
        words = shlex.split(value)
    except ValueError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _home(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return ""


def _cleaned(value: str) -> str:
    """As Ollama reads its variables: without spaces and quotes around them."""
    return value.strip().strip("\"'").strip()
