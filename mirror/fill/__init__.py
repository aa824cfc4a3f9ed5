"""From upstream into the store, while readers already read.

One fill per digest with any number of readers, what a tag means now, and whole models. Touches the disk through
``store`` and the network through ``upstream``; its tasks run in a group that somebody waits in.
"""

from mirror.fill.admission import Admission
from mirror.fill.fill import Fill
from mirror.fill.fills import Fills
from mirror.fill.outdated import Compared, compare
from mirror.fill.pull import Puller, PullProgress
from mirror.fill.reader import FillReader
from mirror.fill.repair import Repairer
from mirror.fill.rollback import Earlier, Rollback
from mirror.fill.tags import Answer, Tags
from mirror.fill.unknown import Unknown

__all__ = [
    "Admission",
    "Answer",
    "Compared",
    "Earlier",
    "Fill",
    "FillReader",
    "Fills",
    "PullProgress",
    "Puller",
    "Repairer",
    "Rollback",
    "Tags",
    "Unknown",
    "compare",
]
