"""The byte rates that hold now, as the clock goes on."""

import asyncio
from zoneinfo import ZoneInfo

from mirror.pulls.clock import Clock, until_or
from mirror.upstream import Upstreams
from mirror.values.rates import Rates


class Pace:
    """Limits each upstream, and all that nobody reads, to the rate of the hour. For the event loop's thread.

    ``run`` it once; until then, and in between, the rates are those of the last look.
    """

    def __init__(self, upstreams: Upstreams, ahead: Rates | None, clock: Clock, zone: ZoneInfo) -> None:
        """``ahead`` is for what nobody reads, over all upstreams; None is no limit. ``zone`` is that of windows."""
        self._upstreams = upstreams
        self._ahead = ahead or Rates()
        self._clock = clock
        self._zone = zone
        self._changed = asyncio.Event()
        self.look()

    @property
    def ahead(self) -> float | None:
        """The rate in force for what nobody reads, in bytes per second; None is no limit."""
        return self._upstreams.ahead.rate

    @property
    def upstream(self) -> float | None:
        """The rate in force for the main upstream, in bytes per second; None is no limit."""
        return self._upstreams.main.budget.rate

    def change(self, *, upstream: Rates | None, ahead: Rates | None) -> None:
        """Limit the main upstream, and what nobody reads, to other rates from now on."""
        self._upstreams.change_rate(upstream)
        self._ahead = ahead or Rates()
        self.look()
        self._changed.set()

    def look(self) -> None:
        """Set the rates to what holds now."""
        now = self._clock.now()
        self._upstreams.set_rates(lambda rates: rates.at(now, self._zone))
        self._upstreams.ahead.set_rate(self._ahead.at(now, self._zone))

    async def run(self) -> None:
        """Set them whenever a window opens or closes, until cancelled."""
        while True:
            self._changed.clear()
            now = self._clock.now()
            self.look()
            edges = [rates.next_change(now, self._zone) for rates in (self._ahead, *self._upstreams.rates)]
            await until_or(self._clock, min([edge for edge in edges if edge is not None], default=None), self._changed)
