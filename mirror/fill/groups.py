"""What a task group raised, as one error."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def first_of(errors: BaseExceptionGroup[E]) -> E:
    """Return the first error of a group, however deep it lies."""
    first = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
