"""The registries above us: manifests, ranged blobs, tokens, redirects, retries, one byte budget. Network out only."""

from mirror.upstream.budget import Budget
from mirror.upstream.carrier import RangeIgnored
from mirror.upstream.connections import Address
from mirror.upstream.registry import Upstream
from mirror.upstream.transfer import Transfer
from mirror.upstream.upstreams import Upstreams

__all__ = ["Address", "Budget", "RangeIgnored", "Transfer", "Upstream", "Upstreams"]
