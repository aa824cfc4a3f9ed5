"""Things in the order in which they are due: a heap that can be walked without being taken apart. Pure."""

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_Entry = tuple[float, int, T]
_SPARE = 16


class DueOrder(Generic[T]):
    """Each thing once, by a number; of two with the same number, the one that was put first comes first.

    ``put`` and ``remove`` take O(log n) comparisons on average over many calls. A walk takes O(log n) for each thing
    it comes to, and changes nothing; between two steps of it nothing may be put or removed.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry[T]] = []
        self._entries: dict[T, _Entry[T]] = {}
        self._puts = 0

    def put(self, thing: T, due: float) -> None:
        """Let it be due then, behind all that are due then already; it loses the place that it had."""
        self._puts += 1
        entry = (due, self._puts, thing)
        self._entries[thing] = entry
        heappush(self._heap, entry)
        self._tidy()

    def remove(self, thing: T) -> None:
        """Take it out, if it is in."""
        self._entries.pop(thing, None)
        self._tidy()

    def __contains__(self, thing: T) -> bool:
        return thing in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        """Yield all, the least first."""
        # The children of a heap's entry are never before it, so what comes next is always next to what has come.
        edge = [(self._heap[0], 0)] if self._heap else []
        while edge:
            entry, at = heappop(edge)
            if self._stands(entry):
                yield entry[2]
            for child in range(2 * at + 1, min(2 * at + 3, len(self._heap))):
                heappush(edge, (self._heap[child], child))

    def _stands(self, entry: _Entry[T]) -> bool:
        """Whether it is the thing's entry still, and not one that was left behind in the heap."""
        return self._entries.get(entry[2]) is entry

    def _tidy(self) -> None:
        """Keep what was left behind from the top, where it is in the way, and from outgrowing what stands."""
        while self._heap and not self._stands(self._heap[0]):
            heappop(self._heap)
        if len(self._heap) > 2 * len(self._entries) + _SPARE:
            self._heap = list(self._entries.values())
            heapify(self._heap)
