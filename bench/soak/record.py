"""What the soak has seen so far, and whether the promises were kept."""

from collections import Counter
from dataclasses import dataclass, field

from bench.soak.causes import Cause, Work

_MOST_TOLD = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A mirror at rest. ``kinds`` says what the descriptors are, for whoever looks for a leak."""

    descriptors: int
    tasks: int
    threads: int
    memory: int
    kinds: Counter[str] = field(default_factory=Counter)

    def more_than(self, before: "Figures") -> tuple[int, int]:
        """Return how many descriptors and tasks there are that were not there before."""
        return max(0, self.descriptors - before.descriptors), max(0, self.tasks - before.tasks)


@dataclass(slots=True)
class Life:
    """One life of the mirror: how it ended, and how it was at rest, first to last."""

    number: int
    ending: str = ""
    seconds: float = 0.0
    rests: list[Figures] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """Everything that is counted. ``broken`` are promises that were not kept, each a sentence."""

    requests: Counter[Work] = field(default_factory=Counter)
    errors: Counter[tuple[Cause, Work, str]] = field(default_factory=Counter)
    unforeseen: Counter[tuple[Work, str]] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0
    blobs_checked: int = 0
    wrong: int = 0
    damaged_served: int = 0
    unproven_refused: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)

    def tell(self, sentence: str) -> None:
        """Keep a sentence for the end; the first of them are enough to find out more."""
        if len(self.told) < _MOST_TOLD:
            self.told.append(sentence)

    def promise_broken(self, promise: str, detail: str) -> None:
        """Note that something was not kept."""
        self.broken[promise] += 1
        self.tell(f"{promise}: {detail}")

    def failed(self, work: Work, error: str, cause: Cause | None, detail: str) -> None:
        """Note an error; ``cause`` explains it, or nothing does."""
        if cause is not None:
            self.errors[cause, work, error] += 1
            return
        self.unforeseen[work, error] += 1
        self.tell(f"unforeseen: {work}, {error}: {detail}")

    @property
    def leaks(self) -> tuple[int, int]:
        """Descriptors and tasks that lives had more of at their last rest than at their first, all together."""
        pairs = [one.rests[-1].more_than(one.rests[0]) for one in self.lives if len(one.rests) > 1]
        return sum(one for one, _ in pairs), sum(one for _, one in pairs)

    @property
    def longest(self) -> Life | None:
        """The life of which most rests are known: growth shows there if it shows at all."""
        known = [one for one in self.lives if len(one.rests) > 1]
        return max(known, key=lambda one: one.seconds, default=None)

    def verdicts(self, most_growth: int) -> list[str]:
        """Return every promise that was not kept, a sentence each; none is how it should be."""
        found = [f"{count} x {promise}" for promise, count in self.broken.items()]
        if self.wrong:
            found.append(f"{self.wrong} blobs were delivered complete with wrong bytes")
        if self.unforeseen:
            found.append(f"{self.unforeseen.total()} errors that nothing explains")
        descriptors, tasks = self.leaks
        if descriptors or tasks:
            found.append(f"{descriptors} descriptors and {tasks} tasks leaked")
        if (life := self.longest) is not None and (grown := growth(life)) > most_growth:
            found.append(f"memory grew by {grown / 1e6:.0f} MB, more than {most_growth / 1e6:.0f} MB")
        return found


def growth(life: Life) -> int:
    """Return by how many bytes a life had grown from its first rest to its last."""
    return life.rests[-1].memory - life.rests[0].memory
