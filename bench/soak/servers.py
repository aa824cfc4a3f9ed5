"""The programs of a soak: the mirror, the registry above it, the Ollamas behind it, each a process of its own."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # the stubs are not installed
import yaml

from bench.servers import free_port
from bench.soak.models import LIMIT_BYTES
from bench.soak.record import Figures

_START_S = 60.0
_END_S = 40.0
_FORESEEN_ERRORS = ("blob damaged",)
"""What the mirror is to say loudly, for the soak flips bytes of blobs at rest."""


@dataclass
class Program:
    """A program that prints where it serves, and is started anew as often as one likes."""

    command: list[str]
    log: Path
    url: str = ""
    process: Process | None = None

    async def start(self) -> None:
        """Start it and wait until it has said where it serves. Raises RuntimeError, TimeoutError."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OLLAMA")}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdin=PIPE, stdout=PIPE, stderr=log, env=kept
            )
        assert self.process.stdout is not None
        async with asyncio.timeout(_START_S):
            first = (await self.process.stdout.readline()).decode().split()
        if not first:
            raise RuntimeError(f"{self.command[2:5]} did not start; see {self.log}")
        self.url = first[-1]

    def say(self, line: bytes) -> None:
        """Write a line to its standard input."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.write(line + b"\n")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    @property
    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.returncode if self.process is not None else None

    async def gone(self) -> int:
        """Wait for its end; return its exit code. One that does not end is killed: TimeoutError."""
        if self.process is None:
            return 0
        try:
            async with asyncio.timeout(_END_S):
                await self.process.communicate()
        except TimeoutError:
            self.process.kill()
            await self.process.communicate()
            raise
        return self.process.returncode or 0

    async def stop(self) -> None:
        """End it, if it runs."""
        self.send(signal.SIGKILL)
        await self.gone()


@dataclass
class Ollama(Program):
    """A fake Ollama that comes back at the same port."""

    port: int = field(default_factory=free_port)

    @classmethod
    def at(cls, base: Path, name: str) -> "Ollama":
        """Return one whose models are below ``base``."""
        command = [sys.executable, "-m", "tests.fakes.ollama", "--models", str(base / name), "--pace", "0.02"]
        made = cls([*command, "--remembers", "2000"], base / f"{name}.log")
        made.command += ["--port", str(made.port)]
        return made


def node_of(mirror: "Mirror", ollama: Ollama) -> Program:
    """Return ``mirror node``, which gives an Ollama to the mirror's hub."""
    command = [sys.executable, "-m", "mirror", "node", "--hub", mirror.address, "--id", "works", "--port", "0"]
    command += ["--host", "127.0.0.1", "--ollama", ollama.url, "--interval", "1s", "--slots", "4"]
    return Program([*command, "--log-level", "error"], mirror.base / "agent.log")


class Mirror(Program):
    """``mirror serve`` with a settings file of its own; it comes back at the same port, as clients expect."""

    def __init__(self, base: Path, upstream: str, ollama: str) -> None:
        self.base = base
        self.store = base / "store"
        self.settings = base / "config.yaml"
        port = free_port()
        self._said = _settings(base, port, upstream, ollama)
        self.address = f"http://127.0.0.1:{port}"
        self._seen = 0
        self.write()
        command = [sys.executable, "-m", "mirror", "serve", "--config", str(self.settings)]
        super().__init__(command, base / "mirror.log")

    def write(self, **changes: Any) -> None:
        """Write the settings, with changes such as ``cache__max_size``."""
        said = {section: dict(keys) for section, keys in self._said.items()}
        for name, value in changes.items():
            section, _, key = name.partition("__")
            said[section][key] = value
        self.settings.write_text(yaml.safe_dump(said))

    def errors(self) -> Iterator[str]:
        """Yield what the log has of errors since the last look."""
        if not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(self._seen)
            fresh = file.read()
        whole = fresh.rpartition(b"\n")[0]
        self._seen += len(whole)
        yield from (line for line in whole.decode("utf-8", "replace").splitlines() if _is_error(line))

    def helpers(self) -> list[psutil.Process]:
        """Return the processes that it has begun."""
        try:
            return list(psutil.Process(self.process.pid).children(recursive=True)) if self.process else []
        except psutil.NoSuchProcess:
            return []

    def at_rest(self, tasks: int) -> Figures:
        """Look at the process; ``tasks`` is what it says of itself."""
        assert self.process is not None
        process = psutil.Process(self.process.pid)
        ours = int(self.address.rpartition(":")[2])
        kinds: Counter[str] = Counter()
        sockets = {one.fd: _leads(one, ours) for one in process.net_connections("tcp")}
        for one in list(Path(f"/proc/{self.process.pid}/fd").iterdir()):
            try:
                kinds[sockets.get(int(one.name)) or _kind(os.readlink(one))] += 1
            except OSError:  # closed meanwhile
                continue
        return Figures(
            descriptors=kinds.total(),
            tasks=tasks,
            threads=process.num_threads(),
            memory=process.memory_info().rss,
            kinds=kinds,
        )


async def checked(mirror: Mirror, *arguments: str) -> tuple[int, str]:
    """Run a command of the mirror's on its settings, while it serves or not; return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mirror", *arguments, "--config", str(mirror.settings)),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={key: value for key, value in os.environ.items() if not key.startswith("OLLAMA")},
    )
    async with asyncio.timeout(_START_S):
        out, err = await process.communicate()
    return process.returncode or 0, (out + err).decode("utf-8", "replace")


def _leads(connection: Any, ours: int) -> str:
    """Say where a connection leads: from a client, or to which port."""
    if connection.laddr.port == ours:
        return f"socket from clients, {connection.status}"
    return f"socket to {connection.raddr.port if connection.raddr else 'nobody'}, {connection.status}"


def _kind(target: str) -> str:
    """Say what a descriptor is, without what is another number each time."""
    kind, _, rest = target.partition(":[")
    return kind if rest else Path(target.removesuffix(" (deleted)")).name


def _is_error(line: str) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return "Traceback" in line or "Error" in line
    bad = isinstance(said, dict) and str(said.get("level", "")).lower() in ("error", "critical")
    return bad and said.get("event") not in _FORESEEN_ERRORS


def _settings(base: Path, port: int, upstream: str, ollama: str) -> dict[str, dict[str, Any]]:
    """Return settings in which everything that happens once a day happens every few seconds."""
    return {
        "server": {"host": "127.0.0.1", "port": port, "shutdown": "2s", "workers": 2},
        "listen": {"idle_timeout": "10s"},
        "cache": {
            "directory": str(base / "store"),
            "max_size": LIMIT_BYTES,
            "low_water": "70%",
            "retention": "60s",
            "loose_retention": "10s",
            "partial_retention": "30s",
            "cleanup_interval": "2s",
            "scrub_interval": "5s",
            "scrub_rate": "50MB/s",
            "manifest_ttl": "2s",
            "negative_ttl": "2s",
            "stale_hold": "2s",
        },
        "upstream": {
            "url": upstream,
            "timeout": "8s",
            "stale_timeout": "1s",
            "connect_timeout": "2s",
            "stall_timeout": "3s",
            "retry_delay": "100ms",
            "connections": 8,
            "max_connections": 24,
        },
        "proxy": {"backends": [ollama], "connect_timeout": "1s"},
        "dispatch": {"slots": 4, "probe_after": "1s", "timeout": "20s"},
        "hub": {"enabled": True, "heartbeat_ttl": "4s", "heartbeat_offline": "8s", "request_timeout": "5s"},
        "pulls": {
            "windows": ["00:00-24:00"],
            "daily_limit": 0,
            "disk_threshold": "100%",
            "tries": 2,
            "retry_delay": "500ms",
            "history": "1m",
            "deliver_to": [ollama],
        },
        "prompts": {"model": "m", "retry_delay": "200ms", "batch_run": "now", "keep": "2m", "idle_at_once": 2},
        "logging": {"level": "WARNING", "format": "json", "access": False},
        "security": {"rate_limit_requests": None},
    }
