"""What holds for every test."""

from collections.abc import Iterator

import pytest
from aiohttp import web_app


@pytest.fixture(autouse=True)
def _no_application_outlives_its_test() -> Iterator[None]:
    """Let go of the applications of a test.

    aiohttp keeps the last thousand pairs of a handler and its applications, which is nothing in a program that has one
    application, and two gigabytes in a process that has had thousands: looking through them for garbage stops the
    event loop for a second now and then.
    """
    yield
    web_app._cached_build_middleware.cache_clear()
