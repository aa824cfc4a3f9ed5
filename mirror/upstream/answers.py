"""What an upstream's status means to us."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from mirror.errors import (
    DeniedByUpstream,
    NotFoundUpstream,
    RateLimited,
    StaleAddress,
    UpstreamError,
    UpstreamLoop,
    UpstreamRefused,
    UpstreamUnavailable,
)


def refusal(status: int, headers: Mapping[str, str], what: str, *, located: bool, now: float) -> UpstreamError:
    """Return the error that an answer of 300 or more is.

    ``located`` says that an address was asked which the upstream gave out for this blob, or a token it accepted:
    where that is refused it may have expired, and asking for it anew brings the last word. ``now`` is the wall
    clock in seconds, for a Retry-After that names a date.
    """
    if located and status in (400, 401, 403, 404, 410):
        return StaleAddress(f"{what}: {status} from an address that was good")
    if status < 400:
        return StaleAddress(f"{what}: answered {status}, another redirect")
    if status in (401, 403):
        return DeniedByUpstream(f"{what}: {status}, access denied")
    if status in (404, 410):
        return NotFoundUpstream(f"{what}: not found upstream")
    if status == 429:
        return RateLimited(f"{what}: 429, the upstream limits requests", _retry_after(headers, now))
    if status == 508:
        return UpstreamLoop(f"{what}: 508, the upstream's own upstream leads back to this mirror")
    if status >= 500 or status in (408, 425):
        return UpstreamUnavailable(f"{what}: answered {status}")
    return UpstreamRefused(f"{what}: answered {status}")


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read Retry-After, seconds or a date (RFC 9110 §10.2.3)."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now)
    except (ValueError, OverflowError):
        return None
