"""Who runs next, and where: the fair queue, the pool of Ollamas, and turns on them.

The queue and the choice are pure; the pool asks its members what they have, and that is all that is touched.
"""

from mirror.dispatch.attempts import AllFailed, Ask, Attempts, Failure
from mirror.dispatch.choice import Candidate, choose, ranked
from mirror.dispatch.fair import FairQueue, Rules, Sharing, Usage
from mirror.dispatch.grouping import Patience
from mirror.dispatch.idle import IdleTurns
from mirror.dispatch.lane import Place
from mirror.dispatch.pool import Fetch, Limits, Member, Pool, Wanted, model_key
from mirror.dispatch.shares import jain
from mirror.dispatch.turns import Turn, Turns
from mirror.dispatch.usage import PROMPT_SHARE, Meter

__all__ = [
    "PROMPT_SHARE",
    "AllFailed",
    "Ask",
    "Attempts",
    "Candidate",
    "Failure",
    "FairQueue",
    "Fetch",
    "IdleTurns",
    "Limits",
    "Member",
    "Meter",
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
