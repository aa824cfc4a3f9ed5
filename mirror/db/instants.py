"""Instants as the database gives them back."""

from datetime import UTC, datetime
from typing import overload


@overload
def aware(when: datetime) -> datetime: ...
@overload
def aware(when: None) -> None: ...
@overload
def aware(when: datetime | None) -> datetime | None: ...
def aware(when: datetime | None) -> datetime | None:
    """Return an instant with its zone: SQLite keeps none, and what was written was UTC."""
    return when.replace(tzinfo=UTC) if when is not None and when.tzinfo is None else when
