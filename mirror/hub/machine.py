"""What a node's machine says of itself: its load, its graphics cards, its addresses."""

import asyncio
import csv
import ipaddress
import os
import shutil
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]  # the stubs are not installed

_GPU_S = 5.0
_NAME_S = 5.0
_KILLED_S = 1.0
_MOST_GPUS = 16
_MOST_OUTPUT = 64 << 10
_MIB = 1 << 20
_QUERY = ("--query-gpu=name,memory.total,memory.used,utilization.gpu", "--format=csv,noheader,nounits")

Gpu = Mapping[str, str | int | float | None]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a machine is, from 0 to 1; None where it cannot be told."""

    cpu: float | None = None
    memory: float | None = None


class Machine:
    """This machine. ``gpu_command`` is the program that tells of graphics cards, if it is there."""

    def __init__(self, gpu_command: str = "nvidia-smi") -> None:
        self._gpu_command = shutil.which(gpu_command)
        self.load()  # what the processor did is measured from one call to the next

    def load(self) -> Load:
        """Return how busy it was since the last call."""
        with suppress(psutil.Error, OSError):
            cpu, memory = psutil.cpu_percent(None) / 100, psutil.virtual_memory().percent / 100
            return Load(_share(cpu), _share(memory))
        return Load()

    async def gpus(self) -> list[Gpu]:
        """Return its graphics cards, none where they cannot be read within a few seconds."""
        if self._gpu_command is None:
            return []
        try:
            process = await asyncio.create_subprocess_exec(
                self._gpu_command,
                *_QUERY,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            return []
        try:
            async with asyncio.timeout(_GPU_S):
                said = await _whole(process.stdout)
                code = await process.wait() if said is not None else None
        except TimeoutError:
            return []
        finally:
            await _ended(process)
        return parse_gpus(said.decode("utf-8", "replace")) if said is not None and code == 0 else []


def parse_gpus(text: str) -> list[Gpu]:
    """Read what nvidia-smi says, a card a line; memory becomes bytes, a number that it does not know None."""
    found: list[Gpu] = []
    for row in csv.reader(text.splitlines()):
        if len(row) != 4 or len(found) == _MOST_GPUS:
            continue
        name, total, used, busy = (one.strip() for one in row)
        found.append(
            {
                "name": name[:100],
                "memory": _times(total, _MIB),
                "memory_used": _times(used, _MIB),
                "load": _share(int(busy) / 100) if _is_number(busy) else None,
            }
        )
    return found


async def addresses_towards(url: str) -> tuple[str | None, str | None]:
    """Return the IPv4 and the IPv6 address of this machine from which the host of a URL is reached, as far as it is."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    found: list[str | None] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        address = None
        with suppress(OSError, TimeoutError, UnicodeError):
            async with asyncio.timeout(_NAME_S):
                port = parts.port or 80
                rows = await loop.getaddrinfo(parts.hostname, port, family=family, type=socket.SOCK_DGRAM)
            address = _local(family, rows[0][4]) if rows else None
        found.append(address)
    return found[0], found[1]


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a program, and those that it began, if it has not ended; let go of what it wrote."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_KILLED_S):
            await process.communicate()


async def _whole(stream: asyncio.StreamReader | None) -> bytes | None:
    """Read what a program says; None where that is too much."""
    said = b""
    while stream is not None and (chunk := await stream.read(_MOST_OUTPUT)):
        said += chunk
        if len(said) > _MOST_OUTPUT:
            return None
    return said


def _local(family: socket.AddressFamily, there: tuple[object, ...]) -> str | None:
    """Return the address that a packet to ``there`` would leave from; none is sent. Raises OSError."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(there)
        here = str(sock.getsockname()[0]).partition("%")[0]
    # One that is good on its own link only means nothing elsewhere.
    return None if ipaddress.ip_address(here).is_link_local else here


def _share(value: float) -> float:
    return min(1.0, max(0.0, round(value, 4)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _times(text: str, unit: int) -> int | None:
    return int(text) * unit if _is_number(text) else None
