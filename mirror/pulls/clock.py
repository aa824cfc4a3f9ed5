"""The time of day, and waiting for one: what a night is told by, and what a test lets pass in a moment."""

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

_STEP_S = 30.0
"""A clock that is set, or a machine that slept, is noticed after so long."""


class Clock(Protocol):
    """Tells the time of day, and wakes who waits for one."""

    def now(self) -> datetime:
        """Return the instant, aware UTC."""

    async def until(self, instant: datetime | None) -> None:
        """Return at ``instant`` or somewhat after; never for None."""


class WallClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the instant, aware UTC."""
        return datetime.now(UTC)

    async def until(self, instant: datetime | None) -> None:
        """Return at ``instant``; never for None."""
        while instant is None or (left_s := (instant - self.now()).total_seconds()) > 0:  # noqa: ASYNC110  # a clock that is set tells nobody
            await asyncio.sleep(_STEP_S if instant is None else min(left_s, _STEP_S))


async def until_or(clock: Clock, instant: datetime | None, changed: asyncio.Event) -> None:
    """Return at ``instant`` (never for None), or as soon as ``changed`` is set."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(changed.wait()), group.create_task(clock.until(instant))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()


def local_zone(environ: Mapping[str, str], link: Path = Path("/etc/localtime")) -> ZoneInfo:
    """Return the machine's time zone: TZ, or where /etc/localtime leads; UTC where neither says one."""
    target = os.path.realpath(link)
    for name in (environ.get("TZ", "").removeprefix(":"), target.partition("/zoneinfo/")[2]):
        try:
            if name:
                return ZoneInfo(name)
        except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            continue
    return ZoneInfo("UTC")
