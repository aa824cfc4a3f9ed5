"""How often one client may ask: pure but for the clock that it is given."""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from mirror.config import render_duration

_MOST = 20_000
_WRONG = 10
_WRONG_S = 60.0
_NS = 1_000_000_000


class Limit:
    """Lets ``count`` requests of each client through at once, and then one per ``window_s / count``, evenly (GCRA).

    In any time ``t`` at most ``count * (1 + t / window_s)`` come through. ``most`` clients are remembered; above, the
    one that asked longest ago is forgotten, and has its whole count again. To be used on the loop.
    """

    def __init__(self, count: int, window_s: float, clock: Callable[[], float], most: int = _MOST) -> None:
        self.said = f"{count} in {render_duration(window_s)} are let through"
        # In whole nanoseconds, so that the last of the count is not held back by a rounding.
        self._step_ns = round(window_s * _NS / count)
        self._slack_ns = self._step_ns * (count - 1)
        self._clock = clock
        self._most = most
        self._due: OrderedDict[str, int] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Return for how many seconds ``client`` is to wait; 0 where a request would come through now."""
        due = self._due.get(client)
        return 0.0 if due is None else max(0, due - self._slack_ns - self._now()) / _NS

    def take(self, client: str) -> float:
        """Count a request. Returns 0 where it comes through, else the seconds to wait; one to wait counts nothing."""
        wait = self.wait_s(client)
        if wait > 0.0:
            return wait
        now = self._now()
        self._due[client] = max(self._due.get(client, now), now) + self._step_ns
        self._due.move_to_end(client)
        while len(self._due) > self._most:
            self._due.popitem(last=False)
        return 0.0

    def _now(self) -> int:
        return int(self._clock() * _NS)


class WrongKeys(Limit):
    """Bounds how often an address may show what is no key: ten a minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(_WRONG, _WRONG_S, clock)


def client_of(key_id: str | None, address: str) -> str:
    """Return what requests are counted by: the key, else the address; of IPv6 the /64, which is one customer's."""
    if key_id is not None:
        return f"key {key_id}"
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address, 64), strict=False))
    except ValueError:
        return address
