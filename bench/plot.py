"""The figures as a picture: bars for each scenario, one for each peer, with the spread of the rounds."""

import statistics
from pathlib import Path

from bench.figures import Better, Figures

_COLOURS = (
    "#9aa5b1",
    "#5b8dbf",
    "#c2894e",
    "#2f855a",
    "#68b58b",
    "#8e6bb3",
    "#d0a9c0",
    "#b04a4a",
    "#5a5a5a",
    "#c9b458",
)


def plot(figures: Figures, path: Path) -> None:
    """Write an SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mirror", "font.family": "sans-serif", "font.size": 9})
    from matplotlib import pyplot as plt

    ways = [one for one in Better if any(scenario.better is one for scenario in figures.scenarios)]
    colours = dict(zip(figures.peers, _COLOURS * 3, strict=False))
    picture, axes = plt.subplots(len(ways), 1, figsize=(9, 4.2 * len(ways)), squeeze=False)
    for (axis,), better in zip(axes, ways, strict=True):
        _bars(axis, figures, better, colours)
    picture.tight_layout()
    picture.savefig(path, metadata={"Date": None})


def _bars(axis: object, figures: Figures, better: Better, colours: dict[str, str]) -> None:
    scenarios = [one for one in figures.scenarios if one.better is better]
    shown: set[str] = set()
    for row, scenario in enumerate(scenarios):
        found = [(peer, figures.ratios(scenario, peer)) for peer in figures.peers]
        found = [(peer, ratios) for peer, ratios in found if ratios]
        height = 0.8 / len(found)
        for at, (peer, ratios) in enumerate(found):
            middle = statistics.median(ratios)
            spread = [[middle - min(ratios)], [max(ratios) - middle]]
            place = row - 0.4 + height * (at + 0.5)
            label = None if peer in shown else peer
            shown.add(peer)
            axis.barh(place, middle, height, xerr=spread, color=colours[peer], label=label, ecolor="#444")  # type: ignore[attr-defined]
    more = "longer is better" if better is Better.SPEED else "shorter is better"
    axis.set(
        yticks=range(len(scenarios)), yticklabels=[one.title for one in scenarios], title=f"{better.value}; {more}"
    )  # type: ignore[attr-defined]
    axis.invert_yaxis()  # type: ignore[attr-defined]
    axis.axvline(1, color="#444", linewidth=0.8)  # type: ignore[attr-defined]
    axis.legend(fontsize=8, loc="best")  # type: ignore[attr-defined]
