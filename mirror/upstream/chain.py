"""The mirrors that a request has come through, so that none asks itself in the end (RFC 9110 §7.6.3, Via)."""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PSEUDONYM = re.compile(r"(?:^|,)\s*(?:HTTP/)?1\.[01]\s+(mirror-[0-9a-f]{12})(?=\s|,|$)", re.IGNORECASE)
_MOST = 8
_came_through: ContextVar[tuple[str, ...]] = ContextVar("came_through", default=())


class Chain:
    """This mirror's place in a chain of mirrors; its pseudonym is random and says nothing of it."""

    def __init__(self) -> None:
        self._own = f"mirror-{secrets.token_hex(6)}"

    def leads_back(self, via: str) -> bool:
        """Say whether a request with this Via was here before, or came through more mirrors than make sense."""
        before = _PSEUDONYM.findall(via)
        return self._own in before or len(before) >= _MOST

    @contextmanager
    def coming_through(self, via: str) -> Iterator[None]:
        """While it lasts, what this task asks of an upstream, and what tasks it starts do, says where it came from."""
        token = _came_through.set(tuple(_PSEUDONYM.findall(via)))
        try:
            yield
        finally:
            _came_through.reset(token)

    @property
    def before(self) -> tuple[str, ...]:
        """The mirrors through which what is asked now has come."""
        return _came_through.get()

    def via(self) -> str:
        """Return the Via of what is asked now."""
        return ", ".join(f"1.1 {one}" for one in (*_came_through.get(), self._own))
