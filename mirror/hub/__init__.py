"""The hub: nodes that tell of themselves by heartbeats, and jobs that are run on them. And ``agent``, what a node runs.

Touches the database, through its table; the agent touches the network to its hub and its Ollama, and asks its machine
how busy it is. It is imported by its own name, for the hub needs nothing of it.
"""

from mirror.dispatch import AllFailed, Failure
from mirror.hub.executor import OnThePool
from mirror.hub.face import HubFace
from mirror.hub.jobs import Executor, InvalidJob, Jobs, Prompt, Run, parse_job
from mirror.hub.node import Heartbeat, InvalidHeartbeat, Node, Status, parse_heartbeat
from mirror.hub.registry import Nodes, NoSuchNode, TooManyNodes, Work
from mirror.hub.settings import NodeSettings

__all__ = [
    "AllFailed",
    "Executor",
    "Failure",
    "Heartbeat",
    "HubFace",
    "InvalidHeartbeat",
    "InvalidJob",
    "Jobs",
    "NoSuchNode",
    "Node",
    "NodeSettings",
    "Nodes",
    "OnThePool",
    "Prompt",
    "Run",
    "Status",
    "TooManyNodes",
    "Work",
    "parse_heartbeat",
    "parse_job",
]
