"""Columns, and how wide each is in a given room. Pure.

Widths do not depend on what is shown, so that nothing moves sideways while one reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column: cells that it takes at ``least`` and at ``most``. Of those that do not fit, the highest ``rank`` goes.

    A rank of 0 stays in any room. Numbers are ``right``.
    """

    heading: str
    least: int
    most: int = 0
    right: bool = False
    rank: int = 0


def widths(columns: Sequence[Column], room: int) -> tuple[int, ...]:
    """Return the cells of each column, 0 for those left out; what is left over goes to the first that may have it."""
    shown = list(columns)
    while _taken(shown) > room and any(one.rank for one in shown):
        shown.remove(max(shown, key=lambda one: one.rank))
    left, found = max(0, room - _taken(shown)), []
    for one in columns:
        more = min(left, max(0, one.most - one.least)) if one in shown else 0
        found.append(one.least + more if one in shown else 0)
        left -= more
    return tuple(found)


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Return the text in exactly ``width`` cells, the end of one that is too long as an ellipsis."""
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…" if width else ""
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def bar(share: float, width: int) -> str:
    """Draw a share from 0 to 1 in ``width`` cells, in eighths of one."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    drawn = "█" * full + ("▏▎▍▌▋▊▉"[part - 1] if part else "")
    return drawn + "░" * (width - len(drawn))


def _taken(columns: Sequence[Column]) -> int:
    return sum(one.least for one in columns) + GAP * max(0, len(columns) - 1)
