"""What a soak has to say at its end: a table for people, one for documents, JSON for programs."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.soak.causes import Cause
from bench.soak.record import Record, growth

MOST_GROWTH = 48_000_000
"""Bytes by which the longest life may have grown from its first rest to its last: what a heap is torn up by."""

Row = tuple[str, str, str]
_ARTICLE = {Cause.UPSTREAM: "an", Cause.OLLAMA: "an"}


@dataclass(frozen=True)
class Report:
    """A run that is over."""

    record: Record
    seconds: float
    seed: int
    damaged: int
    found: int

    @property
    def problems(self) -> list[str]:
        """Every promise that was not kept."""
        return self.record.verdicts(MOST_GROWTH)

    def rows(self) -> Iterator[Row]:
        """Yield what there is to say: what, how much, and what it has to be."""
        record = self.record
        yield "time", f"{self.seconds / 60:.1f} min, seed {self.seed}", ""
        yield "requests", f"{record.requests.total():,}", ""
        for work, count in record.requests.most_common():
            yield f"… {work}", f"{count:,}", ""
        yield "bytes of blobs read", f"{record.bytes_read / 1e9:.2f} GB", ""
        yield "blobs read whole and hashed", f"{record.blobs_checked:,}", ""
        yield "**wrong bytes**", str(record.wrong), "0"
        found = f"{self.found} found or gone, {self.damaged - self.found} put back at an end"
        yield "blobs damaged at rest", f"{self.damaged}: {found}", "all found"
        yield "… read damaged before the scrub came by", str(record.damaged_served), ""
        yield "blobs of unproven ranges that the client's own check refused", str(record.unproven_refused), ""
        for what, count in sorted(record.done.items()):
            yield what, f"{count:,}", ""
        yield from self._of_errors()
        yield from self._of_lives()

    def _of_errors(self) -> Iterator[Row]:
        record = self.record
        yield "faults, restarts and damage on purpose", f"{record.faults.total() + self.damaged:,}", ""
        for cause in Cause:
            kinds: Counter[str] = Counter()
            for (why, _, error), count in record.errors.items():
                kinds[error] += count if why is cause else 0
            if kinds.total():
                said = ", ".join(f"{error} {count:,}" for error, count in kinds.most_common() if count)
                yield f"errors by {_ARTICLE.get(cause, 'a')} {cause}", f"{kinds.total():,}: {said}", ""
        yield "**errors that nothing explains**", str(record.unforeseen.total()), "0"
        yield "**other promises broken**", str(record.broken.total()), "0"

    def _of_lives(self) -> Iterator[Row]:
        record = self.record
        endings = ", ".join(f"{name} {count}" for name, count in sorted(record.endings.items()))
        yield "lives of the mirror", f"{len(record.lives)} ({endings})", ""
        descriptors, tasks = record.leaks
        yield "**leaked descriptors, tasks**", f"{descriptors}, {tasks}", "0, 0"
        if (life := record.longest) is None:
            return
        first, last = life.rests[0], life.rests[-1]
        yield "longest life", f"{life.seconds / 60:.1f} min, {len(life.rests)} rests", ""
        yield "… descriptors at its first and last rest", f"{first.descriptors}, {last.descriptors}", ""
        yield "… tasks", f"{first.tasks}, {last.tasks}", ""
        yield "… threads", f"{first.threads}, {last.threads}", ""
        memory = f"{first.memory / 1e6:.0f} MB, {last.memory / 1e6:.0f} MB"
        yield "**memory at start and end**", memory, f"at most {MOST_GROWTH / 1e6:.0f} MB more"
        course = " ".join(f"{one.memory / 1e6:.0f}" for one in life.rests)
        yield "… at each rest, MB", course, ""

    def markdown(self) -> str:
        """Return the table as documents have it."""
        lines = [f"| {what} | {much} | {wanted} |" for what, much, wanted in self.rows()]
        return "\n".join(["| what | how much | has to be |", "|---|---|---|", *lines])

    def json(self) -> str:
        """Return the same for programs."""
        record, life = self.record, self.record.longest
        said = {
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "requests": {str(work): count for work, count in record.requests.items()},
            "wrong_bytes": record.wrong,
            "errors": [[*map(str, key), count] for key, count in record.errors.items()],
            "unforeseen": [[*map(str, key), count] for key, count in record.unforeseen.items()],
            "broken": dict(record.broken),
            "endings": dict(record.endings),
            "leaked": list(record.leaks),
            "memory": [one.memory for one in life.rests] if life else [],
            "grown": growth(life) if life else None,
            "problems": self.problems,
            "told": record.told,
        }
        return json.dumps(said, indent=2)

    def show(self, console: Console) -> None:
        """Print the table, and what was not kept."""
        table = Table("what", "how much", "has to be")
        for row in self.rows():
            table.add_row(*(f"[bold]{one.strip('*')}[/]" if one.startswith("**") else one for one in row))
        console.print(table)
        for sentence in self.record.told:
            console.print(sentence, style="dim", markup=False)
        for problem in self.problems:
            console.print(f"NOT KEPT: {problem}", style="bold red", markup=False)
        if not self.problems:
            console.print("every promise was kept", style="bold green")
