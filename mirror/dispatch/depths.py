"""How many lanes are how long: what a position in the whole queue is read from. Pure."""


class Depths:
    """For each depth, how many lanes have something that deep; the first that waits is at depth 1."""

    def __init__(self) -> None:
        self._lanes: list[int] = []

    def grown(self, length: int) -> None:
        """A lane has become so long."""
        if length > len(self._lanes):
            self._lanes.append(0)
        self._lanes[length - 1] += 1

    def shrunk(self, length: int) -> None:
        """A lane was so long, and is one shorter now."""
        self._lanes[length - 1] -= 1
        while self._lanes and not self._lanes[-1]:
            self._lanes.pop()

    def down_to(self, depth: int) -> int:
        """Return how many are at that depth or above it, in all lanes."""
        return sum(self._lanes[:depth])
