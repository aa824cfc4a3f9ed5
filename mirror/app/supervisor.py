"""What a service manager is told of this process: when it serves, that its loop turns, when it stops (sd_notify(3))."""

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Self

import structlog

log = structlog.get_logger(__name__)


class Supervisor:
    """The service manager that started the process, if one did and wants to be told. For the event loop's thread."""

    def __init__(self, address: str | None, watchdog_s: float | None) -> None:
        """``address`` is a Unix socket's, ``@`` for a zero byte; ``watchdog_s`` is how long it waits for a sign."""
        self._address = address.replace("@", "\0", 1) if address and address.startswith("@") else address
        self._watchdog_s = watchdog_s

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return the one that the variables of a process name (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID)."""
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
        watched = usec.isascii() and usec.isdigit() and int(usec) > 0 and pid == str(os.getpid())
        return cls(environ.get("NOTIFY_SOCKET"), int(usec) / 1_000_000 if watched else None)

    def serving(self, where: str) -> None:
        """Say that requests are answered from now on."""
        self._tell(f"READY=1\nSTATUS=serving at {where}")

    def stopping(self) -> None:
        """Say that replies may finish, and no more."""
        self._tell("STOPPING=1\nSTATUS=stopping: replies may finish")

    async def reassure(self) -> None:
        """Give a sign as often as is wanted, until cancelled: a loop that hangs gives none, and is started anew."""
        while self._watchdog_s is not None:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 3)

    def _tell(self, said: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as there:
                there.connect(self._address)
                there.send(said.encode())
        except OSError as error:
            log.warning("service manager not told", problem=str(error))
