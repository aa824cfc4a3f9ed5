"""The models of the soak: small and large ones, one that fits no store, one whose tag moves, one that lies."""

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from bench.soak.upstream import MOVING
from mirror.demo.model import manifest_path, write_model
from mirror.values import Manifest, ModelName

LIAR = "library/liar"
GIANT = "library/giant"
LIMIT_BYTES = 24_000_000
"""Room of the store: less than half of what the models have together, so that there is always something to drop."""
_SIZES = (300_000, 700_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000, 6_000_000, 9_000_000, 12_000_000, 5_000_000)
_GIANT_BYTES = 30_000_000
_LIE = 1000


@dataclass(frozen=True)
class Catalog:
    """What there is upstream: names, and every manifest that a name may mean."""

    folder: Path
    manifests: dict[str, frozenset[bytes]]

    @property
    def names(self) -> list[str]:
        """Names without tags."""
        return sorted(self.manifests)

    def pick(self, dice: random.Random) -> str:
        """Return a name; those with odd numbers are asked for more often, and the odd ones out seldom."""
        if dice.random() < 0.06:
            return dice.choice((LIAR, GIANT))
        weights = {name: 3 if name[-1] in "13579" else 1 for name in self.manifests if name not in (LIAR, GIANT)}
        return dice.choices([*weights], [*weights.values()])[0]


def write_catalog(folder: Path) -> Catalog:
    """Write all models into ``folder``; the same bytes every time."""
    found: dict[str, set[bytes]] = defaultdict(set)
    for number, size in enumerate(_SIZES):
        name = f"library/m{number}"
        found[name].add(write_model(folder, size=size, seed=number, name=name).manifest)
    found[GIANT].add(write_model(folder, size=_GIANT_BYTES, seed=100, name=GIANT).manifest)
    for number, tag in enumerate(("one", "two")):
        found[MOVING].add(write_model(folder, size=2_500_000, seed=200 + number, name=MOVING, tag=tag).manifest)
    found[LIAR].add(_lying(folder, write_model(folder, size=1_000_000, seed=300, name=LIAR).manifest))
    return Catalog(folder, {name: frozenset(all_) for name, all_ in found.items()})


def _lying(folder: Path, raw: bytes) -> bytes:
    """Have the manifest say that its weights are larger than they are."""
    said = json.loads(raw)
    said["layers"][0]["size"] += _LIE
    lied = json.dumps(said).encode()
    manifest_path(folder, ModelName.parse(LIAR)).write_bytes(lied)
    return Manifest.parse(lied).raw
