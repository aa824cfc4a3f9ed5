"""How even shares are, as one number. Pure."""

from collections.abc import Iterable


def jain(shares: Iterable[float]) -> float:
    """Return Jain's fairness index: 1 when all are equal, 1/n when one of n has everything.

    Shares are finite and not negative; none at all, or nothing but zeros, are equal. Raises ValueError for others.
    (Jain, Chiu and Hawe 1984, DEC-TR-301.)
    """
    shares = list(shares)
    if not all(0 <= share < float("inf") for share in shares):
        msg = f"shares are finite and not negative, not {shares}"
        raise ValueError(msg)
    largest = max(shares, default=0.0)
    if not largest:
        return 1.0
    parts = [share / largest for share in shares]  # squares of very large or small shares are no floats
    return sum(parts) ** 2 / (len(parts) * sum(part * part for part in parts))
