"""What a bench of bytes measured, and the tables made of it: medians, and ratios to a base within the same round."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum


class Better(Enum):
    """How a scenario's figures compare with those of its base."""

    SPEED = "speed, of the base's"
    TIME = "time, of the base's"


@dataclass(frozen=True)
class Scenario:
    """What is done, and which peer's figure is 1.00."""

    title: str
    base: str
    better: Better


@dataclass
class Sample:
    """What was measured of one peer in one round; ``amount`` is seconds, or answers per second."""

    amount: float
    cpu_per_gb: float | None = None
    peak_mb: float | None = None
    upstream: float | None = None


@dataclass
class Figures:
    """All samples, a row of them for each scenario and peer; a peer that could not do it has None in that round."""

    samples: dict[tuple[Scenario, str], list[Sample | None]] = field(default_factory=lambda: defaultdict(list))

    def add(self, scenario: Scenario, peer: str, sample: Sample | None) -> None:
        self.samples[scenario, peer].append(sample)

    @property
    def scenarios(self) -> list[Scenario]:
        return list(dict.fromkeys(scenario for scenario, _ in self.samples))

    @property
    def peers(self) -> list[str]:
        return list(dict.fromkeys(peer for _, peer in self.samples))

    def ratios(self, scenario: Scenario, peer: str) -> list[float]:
        """Return a ratio for each round in which both did it; the more the better for speed, the less for time."""
        pairs = zip(self.samples[scenario, scenario.base], self.samples.get((scenario, peer), ()), strict=False)
        both = [(base.amount, one.amount) for base, one in pairs if base and one]
        if scenario.better is Better.TIME:
            return [one / base for base, one in both]
        if scenario.title.startswith("manifests"):
            return [one / base for base, one in both]
        return [base / one for base, one in both]

    def median(self, scenario: Scenario, peer: str, what: str) -> float | None:
        found = [getattr(one, what) for one in self.samples.get((scenario, peer), ()) if one]
        known = [one for one in found if one is not None]
        return statistics.median(known) if known else None

    def as_json(self) -> list[dict[str, object]]:
        return [
            {"scenario": scenario.title, "base": scenario.base, "better": scenario.better.value, "peer": peer}
            | {"rounds": [asdict(one) if one else None for one in rounds]}
            for (scenario, peer), rounds in self.samples.items()
        ]


def tables(figures: Figures) -> str:
    """Return a table of ratios for each way to compare, then what it cost."""
    said = []
    for better in Better:
        chosen = [one for one in figures.scenarios if one.better is better]
        if chosen:
            said += [f"**{better.value.capitalize()} (lowest to highest of the rounds)**", ""]
            said += [*_table(figures, chosen, lambda one, peer: _spread(figures.ratios(one, peer))), ""]
    for title, what, form in (
        ("Processor seconds per GB that clients got", "cpu_per_gb", "{:.2f}"),
        ("Peak memory, MB", "peak_mb", "{:.0f}"),
        ("Bytes from upstream, of the blob's", "upstream", "{:.2f}"),
    ):
        chosen = [one for one in figures.scenarios if any(figures.median(one, peer, what) for peer in figures.peers)]
        if chosen:
            said += [f"**{title}**", ""]
            said += [*_table(figures, chosen, lambda one, peer, w=what, f=form: _one(figures, one, peer, w, f)), ""]
    return "\n".join(said).rstrip()


def _table(figures: Figures, scenarios: list[Scenario], cell: object) -> Iterator[str]:
    assert callable(cell)
    rows = [(one.title, [cell(one, peer) for peer in figures.peers]) for one in scenarios]
    used = [at for at, _ in enumerate(figures.peers) if any(cells[at] != "-" for _, cells in rows)]
    yield "| | " + " | ".join(figures.peers[at] for at in used) + " |"
    yield "|---|" + "---|" * len(used)
    for title, cells in rows:
        yield f"| {title} | " + " | ".join(cells[at] for at in used) + " |"


def _spread(ratios: list[float]) -> str:
    if not ratios:
        return "-"
    middle = statistics.median(ratios)
    low, high = min(ratios), max(ratios)
    return f"{middle:.2f}" if high - low < 0.005 else f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _one(figures: Figures, scenario: Scenario, peer: str, what: str, form: str) -> str:
    found = figures.median(scenario, peer, what)
    return "-" if found is None else form.format(found)
