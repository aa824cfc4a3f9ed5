"""One user's requests in the order they came, and where the user stands among the others. Pure."""

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Place(Generic[T]):
    """A request that waits, or that was taken and runs.

    ``since`` is when it came, in seconds of the caller's clock; ``cost`` what it is thought to cost, and what it did
    cost once that is known; ``weight`` its user's when it was taken.
    """

    lane: "Lane[T]" = field(repr=False)
    number: int
    item: T
    since: float
    cost: float
    weight: float = 1.0

    @property
    def user(self) -> str:
        """Whose it is."""
        return self.lane.user


@dataclass(eq=False, slots=True)
class Lane(Generic[T]):
    """What waits and runs of one user, by number, the first come first.

    ``due`` is the virtual time of its next turn, and ``floor`` what no refund brings that below. ``late`` says that
    others had turns since its own because nothing could take its head, or what took it gave it back. For grouping:
    ``passed`` is how often others went before its head, ``passed_since`` since when, ``ahead`` how often it went before
    its turn.
    """

    user: str
    waiting: OrderedDict[int, Place[T]] = field(default_factory=OrderedDict)
    running: dict[int, Place[T]] = field(default_factory=dict)
    due: float = 0.0
    floor: float = 0.0
    late: bool = False
    passed: int = 0
    passed_since: float | None = None
    ahead: int = 0
    puts: int = 0
    taken: int = 0
    cost: float = 0.0

    @property
    def head(self) -> Place[T]:
        """The first that waits; there must be one."""
        return next(iter(self.waiting.values()))

    @property
    def idle(self) -> bool:
        """Whether nothing of it waits or runs."""
        return not self.waiting and not self.running

    def put(self, item: T, now: float, cost: float) -> Place[T]:
        """Add a request at the end."""
        self.puts += 1
        place = self.waiting[self.puts] = Place(self, self.puts, item, now, cost)
        return place

    def join(self, clock: float) -> None:
        """Stand among the others from now on: due at the ``clock``, or later where its own turns say so."""
        self.catch_up(clock)
        self._next()

    def start(self, charge: float, weight: float) -> Place[T]:
        """Take the head out, let it run, and move the next turn on by what the user is charged for it."""
        _, place = self.waiting.popitem(last=False)
        self.running[place.number] = place
        place.weight = weight
        self.due += charge / weight
        self.taken += 1
        self.cost += place.cost
        self._next()
        return place

    def give_back(self, place: Place[T], charge: float) -> None:
        """Let what ran wait again, before all that came after it; it is charged nothing, and its turn stands out."""
        del self.running[place.number]
        before = list(takewhile(lambda number: number < place.number, self.waiting))
        self.waiting[place.number] = place
        for number in (place.number, *reversed(before)):
            self.waiting.move_to_end(number, last=False)
        self.due = max(self.floor, self.due - charge / place.weight)
        self.taken -= 1
        self.cost -= place.cost
        self.late = True

    def correct(self, place: Place[T], cost: float, *, charged: bool) -> None:
        """Learn what a request did cost; the next turn moves by the difference where the user is ``charged`` it."""
        more = cost - place.cost
        place.cost = cost
        self.cost += more
        if charged:
            self.due = max(self.floor, self.due + more / place.weight)

    def catch_up(self, clock: float) -> None:
        """Be due at the ``clock`` at the earliest: turns that it did not want or could not use are not kept."""
        self.due = max(self.due, clock)
        self.floor = clock

    def pass_over(self, now: float) -> None:
        """Another went before its head."""
        self.passed += 1
        if self.passed_since is None:
            self.passed_since = now

    def _next(self) -> None:
        """Another head, which has not been passed over yet."""
        self.late = False
        self.passed = 0
        self.passed_since = None
