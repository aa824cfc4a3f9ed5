"""What a node is told when it starts."""

import socket
from dataclasses import dataclass, field

from mirror.values import ModelName


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """A node: whose it is, what it calls itself, where it listens, and the Ollama behind it.

    ``hub`` and ``ollama`` are URLs without a trailing slash; ``host`` is an address to listen on, None for all, and
    ``port`` 0 lets the system choose. ``required`` models are fetched through the hub where the Ollama lacks them.
    ``token`` is shown to the hub, and has to be shown by who asks the node.
    """

    hub: str
    node_id: str
    host: str | None = None
    port: int = 8001
    ollama: str = "http://127.0.0.1:11434"
    interval_s: float = 30.0
    required: tuple[ModelName, ...] = ()
    token: str | None = field(default=None, repr=False)
    slots: int | None = None
    weight: float | None = None
    poll_s: float = 3.0
    hostname: str = field(default_factory=socket.gethostname)
