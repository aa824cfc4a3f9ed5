"""What stays in the store and what goes: the plan (pure), the keeper that carries it out, the scrub.

Touches the disk through ``store``, and what is remembered of uses through ``db``.
"""

from mirror.keep.keeper import Collected, Keeper
from mirror.keep.plan import Facts, Kind, Loose, ModelFacts, Plan, Row, Rules, plan
from mirror.keep.scrub import Pass, Scrub, Scrubbed

__all__ = [
    "Collected",
    "Facts",
    "Keeper",
    "Kind",
    "Loose",
    "ModelFacts",
    "Pass",
    "Plan",
    "Row",
    "Rules",
    "Scrub",
    "Scrubbed",
    "plan",
]
