"""Where a fill's bytes come from, and how hard it tries to get them."""

from dataclasses import dataclass
from typing import Protocol

from mirror.upstream import Address, Transfer, Upstream
from mirror.values import Digest, ModelName


class Source(Protocol):
    """Where a fill's bytes come from: one blob of one upstream."""

    async def locate(self) -> Address:
        """Resolve the blob anew; raises UpstreamError."""

    async def carry(self, address: Address, transfer: Transfer) -> None:
        """Bring in one range by a thread; raises UpstreamError and what the sink raises."""


@dataclass(frozen=True, slots=True)
class FillSettings:
    """How hard a fill tries. Times in seconds."""

    connections: int
    retry_attempts: int
    retry_delay_s: float
    stall_timeout_s: float


@dataclass(frozen=True, slots=True)
class BlobOf:
    """One blob of one upstream's repository, as a fill's source."""

    upstream: Upstream
    name: ModelName
    digest: Digest
    size: int | None

    async def locate(self) -> Address:
        """Resolve it anew; raises UpstreamError. The fill tries again by itself."""
        return await self.upstream.locate(self.name.repository, self.digest, self.size, once=True)

    async def carry(self, address: Address, transfer: Transfer) -> None:
        """Bring in one range."""
        await self.upstream.carry(address, transfer)
