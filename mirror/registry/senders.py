"""The mirror's end of the processes that send blobs: who of them sends what, and what becomes of it when one dies.

The mirror decides on every answer and writes its head; then it passes the connection's descriptor and the blob's to a
process whose interpreter has nothing else to do. So a key, a rule, a proxy or a damaged blob means there what it means
here, and clients see no further address (decision 16).
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from mirror.registry import sender_process
from mirror.registry.sender_process import DONE, MOVED, ORDER, REPORT, SEND, STOP
from mirror.values import ByteRange

log = structlog.get_logger(__name__)

Moved = Callable[[int], None]

_WORTH_IT = 4 << 20
_KEPT_HERE = 1 << 20
_AGAIN_S = 1.0
_LONGEST_AGAIN_S = 60.0
_REPORTS_AT_ONCE = 256
_END_S = 5.0


@dataclass(slots=True)
class _Transfer:
    moved: Moved
    done: asyncio.Future[None]


class _Sender:
    """One process, as long as it lives. For the event loop's thread."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._numbers = count()
        self._transfers: dict[int, _Transfer] = {}
        self._gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(control, self._hear)

    @classmethod
    async def started(cls) -> Self:
        """Start a process. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-I", str(Path(sender_process.__file__)), str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    @property
    def busy(self) -> int:
        """How many transfers it has."""
        return len(self._transfers)

    async def send(self, connection: int, file: int, span: ByteRange, moved: Moved) -> bool:
        """Have it send ``span``, telling ``moved`` now and then of bytes; False where it takes no more orders now.

        Raises ConnectionError: the client has left, or the process; and what ``moved`` raises.
        """
        number = next(self._numbers)
        order = ORDER.pack(SEND, number, span.start, span.stop)
        try:
            socket.send_fds(self._control, [order], [connection, file])
        except OSError:
            return False
        transfer = _Transfer(moved, asyncio.get_running_loop().create_future())
        self._transfers[number] = transfer
        try:
            await transfer.done
        except BaseException:
            self._stop(number)
            raise
        finally:
            del self._transfers[number]
        return True

    async def gone(self) -> None:
        """Wait until the process has let go of its end; what it was sending has failed by then."""
        await self._gone.wait()

    async def close(self) -> None:
        """Have it end, and wait for that."""
        self._let_go()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._process.wait()
                return
        self._process.kill()
        await self._process.wait()

    def _let_go(self) -> None:
        if not self._gone.is_set():
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._gone.set()
        for transfer in self._transfers.values():
            if not transfer.done.done():
                transfer.done.set_exception(ConnectionAbortedError("the process that sent this is gone"))

    def _stop(self, number: int) -> None:
        """Have it let go of a transfer; a process that cannot be told ends, which lets go of everything."""
        try:
            self._control.send(ORDER.pack(STOP, number, 0, 0))
        except OSError:
            self._let_go()

    def _hear(self) -> None:
        for _ in range(_REPORTS_AT_ONCE):
            try:
                said = self._control.recv(REPORT.size)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                self._let_go()
                return
            self._heard(*REPORT.unpack(said))

    def _heard(self, kind: int, number: int, moved: int) -> None:
        transfer = self._transfers.get(number)
        if transfer is None or transfer.done.done():
            return  # stopped, and this was on its way
        try:
            transfer.moved(moved)
        except Exception as error:  # it is for the one who waits
            transfer.done.set_exception(error)
            return
        if kind == DONE:
            transfer.done.set_result(None)
        elif kind != MOVED:
            transfer.done.set_exception(ConnectionResetError("the client has left"))


class Senders:
    """The processes, kept alive while the context lasts. For the event loop's thread."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._living: list[_Sender] = []
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def send(self, connection: int, file: int, span: ByteRange, moved: Moved) -> int:
        """Have the least busy process send what of ``span`` is worth it, and return how far that went.

        The end is always left to the caller, so that it is the mirror that lets an answer become whole. Nothing may
        wait in front of the bytes in the mirror, nor be written there meanwhile.

        Raises ConnectionError: the client has left, or the process; and what ``moved`` raises.
        """
        if len(span) < _WORTH_IT or not self._living:
            return span.start
        sender = min(self._living, key=lambda one: one.busy)
        part = ByteRange(span.start, span.stop - _KEPT_HERE)
        return part.stop if await sender.send(connection, file, part, moved) else span.start

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(self._keep(), name="sender") for _ in range(self._number)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, at)

    async def _keep(self) -> None:
        """Have one process, and another whenever it is gone."""
        again_s = _AGAIN_S
        while True:
            try:
                sender = await _Sender.started()
            except OSError as problem:
                log.warning("no process to send with", problem=str(problem), again_s=again_s)
            else:
                again_s = await self._kept(sender, again_s)
            await asyncio.sleep(again_s)
            again_s = min(2 * again_s, _LONGEST_AGAIN_S)

    async def _kept(self, sender: _Sender, again_s: float) -> float:
        """Give it work as long as it lives; return when to start another."""
        began = asyncio.get_running_loop().time()
        self._living.append(sender)
        try:
            await sender.gone()
        finally:
            self._living.remove(sender)
            await sender.close()
        log.warning("a process that sent blobs has ended", again_s=again_s)
        lived_s = asyncio.get_running_loop().time() - began
        return _AGAIN_S if lived_s > _LONGEST_AGAIN_S else again_s
