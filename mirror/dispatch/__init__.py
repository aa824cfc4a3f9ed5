"""Who runs next, and where: the fair queue, the pool of Ollamas, and turns on them.

The queue and the choice are pure; the pool asks its members what they have, and that is all that is touched.
"""

from mirror.dispatch.choice import Candidate, choose, ranked
from mirror.dispatch.fair import FairQueue, Rules, Sharing, Usage
from mirror.dispatch.grouping import Patience
from mirror.dispatch.lane import Place
from mirror.dispatch.pool import Limits, Member, Pool, Wanted, model_key
from mirror.dispatch.shares import jain
from mirror.dispatch.turns import Turn, Turns

__all__ = [
    "Candidate",
    "FairQueue",
    "Limits",
    "Member",
    "Patience",
    "Place",
    "Pool",
    "Rules",
    "Sharing",
    "Turn",
    "Turns",
    "Usage",
    "Wanted",
    "choose",
    "jain",
    "model_key",
    "ranked",
]
