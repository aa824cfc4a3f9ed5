"""The settings of the Ollamas behind the mirror: which they are, who has a turn on them, and nodes that come and go."""

from pydantic import Field

from mirror.config.groups import Backends, Section
from mirror.config.kinds import Aliases, Backend, Fairness, FairnessOf, Secret, Texts, Weights
from mirror.config.units import ByteSize, Duration


class ProxySettings(Section):
    """The Ollama that stands behind /api and /v1."""

    backend: Backend = Field(
        "auto",
        description="URL of an Ollama; none answers from the store; auto is http://127.0.0.1:11435 where one answers.",
    )
    backends: Backends = Field(
        (), description="Several Ollamas that share the work: URLs, or groups; the list replaces proxy.backend."
    )
    connect_timeout: Duration = Field(5.0, gt=0, description="Time for a connection to it to open.")
    max_body: ByteSize = Field(
        100_000_000, ge=1024, description="Most bytes of a request that is read to see which model it is about."
    )


class DispatchSettings(Section):
    """Whose turn it is on the Ollamas, and on which of them."""

    fairness: FairnessOf = Field(
        Fairness.COST, description="What is shared evenly among users: cost (tokens), or turns (requests)."
    )
    slots: int = Field(1, ge=1, le=1000, description="Requests that one Ollama runs at once, unless it says otherwise.")
    timeout: Duration = Field(300.0, gt=0, description="Longest that a request waits for its turn.")
    max_waiting: int = Field(20_000, ge=1, description="Most requests that wait at once.")
    max_waiting_per_user: int = Field(2000, ge=1, description="Most of them of one user.")
    weights: Weights = Field((), description="Users who get more turns than others, or fewer: {ann: 2, batch: 0.5}.")
    patience: int = Field(
        3, ge=0, le=100, description="Times that a request is passed over for one whose model is loaded; 0 is never."
    )
    trusted_users: Texts = Field(
        (), description="Users whose keys may say X-User-ID for others; without a key loopback and trusted proxies may."
    )
    aliases: Aliases = Field((), description="Further names of models: {gpt-4o: llama3.2, fast: qwen3:0.6b}.")
    deliver_missing: bool = Field(
        True, description="Deliver a model that no Ollama has, and the store does, when it is asked for."
    )
    max_failures: int = Field(3, ge=1, description="Failures in a row after which an Ollama is left alone for a while.")
    probe_after: Duration = Field(10.0, gt=0, description="Time after which such an Ollama is tried again.")
    retries: int = Field(3, ge=0, le=100, description="Further Ollamas that are tried before the first byte has come.")
    keep_usage: Duration = Field(
        34_560_000.0, gt=0, description="How long it is kept who had how much of which model on which day."
    )


class HubSettings(Section):
    """Nodes: machines that tell by heartbeats that they run an Ollama."""

    enabled: bool = Field(False, description="Answer /nodes, /jobs and /healthz, and send requests to nodes.")
    announce: bool = Field(False, description="Tell the network by mDNS where the hub is: mirror node --hub auto.")
    token: Secret | None = Field(None, description="Token that nodes must show; null takes any node on the network.")
    heartbeat_ttl: Duration = Field(90.0, gt=0, description="Time without a heartbeat after which a node is offline.")
    heartbeat_offline: Duration = Field(180.0, gt=0, description="Time without one after which it is forgotten.")
    request_timeout: Duration = Field(120.0, gt=0, description="Longest silence of a node before its first byte.")
