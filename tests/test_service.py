"""The service files, judged by systemd itself, and what a service manager is told."""

import asyncio
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.process import run, serving

UNITS = Path(__file__).parents[1] / "contrib" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
analyzed = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
_MOST_EXPOSED = 2.5


@analyzed
@pytest.mark.parametrize("name", ["mirror.service", "mirror-node.service"])
async def test_systemd_finds_no_fault_with_a_unit(name: str, tmp_path: Path) -> None:
    """Every word is known to it; the program is put where there is one."""
    unit = tmp_path / name
    unit.write_text((UNITS / name).read_text().replace("/opt/mirror/bin/mirror", sys.executable))
    found = await run(str(ANALYZE), "verify", "--man=no", str(unit))
    assert (found.code, found.out + found.err) == (0, "")


@analyzed
@pytest.mark.parametrize("name", ["mirror.service", "mirror-node.service"])
async def test_a_service_is_exposed_to_little(name: str) -> None:
    """By systemd's own count, where 10 is a program that may do anything."""
    found = await run(str(ANALYZE), "security", "--offline=true", "--no-pager", str(UNITS / name))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.out + found.err)
    assert exposure is not None
    assert float(exposure[1]) < _MOST_EXPOSED


async def test_a_service_manager_is_told_of_start_life_and_end(tmp_path: Path) -> None:
    """Ready once requests are answered; signs of life as often as it wants them; stopping."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        loop, said = asyncio.get_running_loop(), list[str]()

        async def until(word: str) -> None:
            while not said or word not in said[-1]:
                said.append((await loop.sock_recv(manager, 4096)).decode())

        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        async with asyncio.timeout(30), serving(tmp_path / "store", "http://127.0.0.1:9", env=env) as (url, process):
            await until("READY=1")
            assert said == [f"READY=1\nSTATUS=serving at {url}"]
            for _ in range(3):
                said.append("")
                await until("WATCHDOG=1")
            process.send_signal(signal.SIGTERM)
            await until("STOPPING=1")
            assert await process.wait() == 0


async def test_a_service_manager_that_has_gone_costs_nothing(tmp_path: Path) -> None:
    """Nor does a watchdog that is meant for another process."""
    env = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    async with serving(tmp_path / "store", "http://127.0.0.1:9", env=env) as (_, process):
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
