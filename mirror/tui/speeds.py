"""How fast fills grow, from one look to the next."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mirror.tui.reading import Fill

_WEIGHT_OF_THE_NEW = 0.4


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    here: int
    rate: float | None


class Speeds:
    """Remembers the fills of the last look only. Instants are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def rated(self, fills: Iterable[Fill], at: float) -> tuple[Fill, ...]:
        """Return the fills of a look with their rates, which are smoothed; at its first look a fill has none."""
        now = {one.digest: (one, self._next(one, at)) for one in fills}
        self._seen = {digest: seen for digest, (_, seen) in now.items()}
        return tuple(replace(one, rate=seen.rate) for one, seen in now.values())

    def _next(self, fill: Fill, at: float) -> _Seen:
        before = self._seen.get(fill.digest)
        if before is None or at <= before.at or fill.here < before.here:
            return _Seen(at, fill.here, None)
        rate = (fill.here - before.here) / (at - before.at)
        if before.rate is not None:
            rate = before.rate + _WEIGHT_OF_THE_NEW * (rate - before.rate)
        return _Seen(at, fill.here, rate)
