"""Who is connected: a bounded number, in which those who do nothing make room for those who come."""

from collections import OrderedDict
from collections.abc import Callable


class Guest:
    """One connection. ``leave`` ends it at once; who holds the connection sets it."""

    __slots__ = ("leave",)

    def __init__(self) -> None:
        self.leave: Callable[[], object] = _nothing

    def left(self) -> None:
        """It has ended: what would end it is kept no longer."""
        self.leave = _nothing


class Guests:
    """The connections there are. ``most`` bounds them, so that a flood takes neither memory nor descriptors.

    A connection is idle until its first request is there whole, and between requests: a flood of silent connections
    ends its own. One that is answered is never ended for another.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: set[Guest] = set()
        self._idle: OrderedDict[Guest, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, guest: Guest) -> bool:
        """Take one more, as idle; say whether there was, or could be made, room for it."""
        if len(self._all) >= self._most:
            if not self._idle:
                return False
            longest, _ = self._idle.popitem(last=False)
            self._all.discard(longest)
            longest.leave()
        self._all.add(guest)
        self._idle[guest] = None
        return True

    def busy(self, guest: Guest) -> None:
        """From now on it is being answered."""
        self._idle.pop(guest, None)

    def idle(self, guest: Guest) -> None:
        """From now on it is waited for, and goes after those that are idle for longer."""
        if guest in self._all:
            self._idle[guest] = None
            self._idle.move_to_end(guest)

    def gone(self, guest: Guest) -> None:
        """It has ended; to say so twice does no harm."""
        self._all.discard(guest)
        self._idle.pop(guest, None)


def _nothing() -> None:
    pass
