"""One range on its way in, between the loop that decides and the thread that carries."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from mirror.values import ByteRange

Sink = Callable[[int, memoryview], None]
"""Called in a thread with (offset, bytes), in rising order; the bytes are there until it returns."""


class Transfer:
    """One range on its way in. The loop may shorten it and stop it while it runs; a thread moves ``at`` on."""

    def __init__(self, span: ByteRange, sink: Sink, *, urgent: Callable[[], bool]) -> None:
        self.span = span
        self.at = span.start
        self.sink = sink
        self.urgent = urgent
        self.stopped = False
        self.held_up = True
        """Whether it waits for a thread or for the budget, not for the upstream."""
        self._claimed = span.start
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def hold(self, connection: socket.socket | None) -> None:
        """Say which socket carries it now, so that ``stop`` can end a thread that waits on it."""
        with self._lock:
            self._socket = connection
            if self.stopped and connection is not None:
                _shut(connection)

    def stop(self) -> None:
        """End it soon, wherever it is: waiting for a byte, for the budget, or at work."""
        with self._lock:
            self.stopped = True
            if self._socket is not None:
                _shut(self._socket)

    def claim(self, most: int, have: int = 0) -> int:
        """Return how many bytes to read from ``at`` on, at most so many, of which ``have`` have been read already.

        It is no more than ``have`` when it is over. For the thread that carries.
        """
        with self._lock:
            count = have if self.stopped else max(have, min(most, self.span.stop - self.at))
            self._claimed = self.at + count
            return count

    def shorten(self, stop: int) -> ByteRange | None:
        """Let it end at ``stop`` and return what it gives up; None where it has come too far for that."""
        with self._lock:
            if not max(self._claimed, self.at + 1) <= stop < self.span.stop:
                return None
            rest = ByteRange(stop, self.span.stop)
            self.span = ByteRange(self.span.start, stop)
            return rest


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
