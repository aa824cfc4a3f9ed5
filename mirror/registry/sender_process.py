"""A process that sends files to sockets: what ``server.workers`` adds to the mirror.

``python -I sender_process.py FD``: ``FD`` is one end of a Unix socket that keeps messages apart. With each ``SEND``
come two descriptors, of a connection and of a file (SCM_RIGHTS, unix(7)), and the bytes that are to go. It ends when
the mirror closes its end, however that comes; signals that a terminal or a service manager sends to all are the
mirror's.

Imports nothing but the standard library, so that it starts at once and is small.
"""

import os
import selectors
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass

ORDER = struct.Struct("!BQQQ")
"""What the mirror says: SEND or STOP, the number of the transfer, the first byte, the one after the last."""
REPORT = struct.Struct("!BQQ")
"""What this process says: MOVED, DONE or FAILED, the number of the transfer, bytes since its last report."""
SEND, STOP = 1, 2
MOVED, DONE, FAILED = 1, 2, 3

_STEP = 4 << 20
_AHEAD = 8 << 20
_REPORT_EACH = 16 << 20
_ORDERS_AT_ONCE = 64
_TWO = struct.Struct("@ii")
_BESIDE = socket.CMSG_SPACE(_TWO.size)


@dataclass(slots=True)
class _Transfer:
    number: int
    connection: int
    file: int
    at: int
    stop: int
    reported: int

    def step(self) -> bool | None:
        """Send what the connection takes; True at the end, None when it takes nothing more, False when it is gone."""
        try:
            count = os.sendfile(self.connection, self.file, self.at, min(_STEP, self.stop - self.at))
        except BlockingIOError:
            os.posix_fadvise(self.file, self.at, _AHEAD, os.POSIX_FADV_WILLNEED)
            return None
        except OSError:
            return False
        self.at += count
        if not count:
            return False  # the file ended early
        return True if self.at == self.stop else None

    def close(self) -> None:
        os.close(self.connection)
        os.close(self.file)


class _Process:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._ready = selectors.DefaultSelector()
        self._ready.register(control, selectors.EVENT_READ)
        self._transfers: dict[int, _Transfer] = {}

    def run(self) -> None:
        """Send until the mirror is gone."""
        while True:
            for key, _ in self._ready.select():
                if key.data is not None:
                    self._go_on(key.data)
                elif not self._orders():
                    return

    def _orders(self) -> bool:
        """Take what the mirror says now; False once it will say no more."""
        for _ in range(_ORDERS_AT_ONCE):
            try:
                # recv_fds of Python 3.11 to 3.14 does not pass flags on.
                said, beside, _, _ = self._control.recvmsg(ORDER.size, _BESIDE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not said:
                return False
            kind, number, start, stop = ORDER.unpack(said)
            if kind == SEND:
                connection, file = _TWO.unpack(beside[0][2])
                self._begin(_Transfer(number, connection, file, start, stop, start))
            elif (transfer := self._transfers.get(number)) is not None:
                self._end(transfer)
        return True

    def _begin(self, transfer: _Transfer) -> None:
        self._transfers[transfer.number] = transfer
        self._ready.register(transfer.connection, selectors.EVENT_WRITE, transfer)

    def _go_on(self, transfer: _Transfer) -> None:
        if transfer.number not in self._transfers:
            return  # stopped by an order of the same round
        ended = transfer.step()
        if ended is not None:
            self._report(DONE if ended else FAILED, transfer)
            self._end(transfer)
        elif transfer.at - transfer.reported >= _REPORT_EACH:
            self._report(MOVED, transfer)

    def _report(self, kind: int, transfer: _Transfer) -> None:
        self._control.send(REPORT.pack(kind, transfer.number, transfer.at - transfer.reported))
        transfer.reported = transfer.at

    def _end(self, transfer: _Transfer) -> None:
        # Taken out before it is closed: the mirror has the same connection open, so that closing would not do it.
        self._ready.unregister(transfer.connection)
        del self._transfers[transfer.number]
        transfer.close()


def main() -> None:
    """Send what is ordered on the descriptor that the arguments name."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(BrokenPipeError):  # the mirror is gone
        _Process(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
