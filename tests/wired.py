"""The application of a mirror as it is wired, without a socket, and every switch of its settings on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from mirror.app.access import access_of
from mirror.app.application import Ways, application
from mirror.app.parts import opened_parts
from mirror.registry import Senders
from tests.support import settings

EVERYTHING: dict[str, Any] = {"hub__enabled": True}
"""What is off by default, and has routes."""


@asynccontextmanager
async def wired(folder: Path, **changes: Any) -> AsyncIterator[web.Application]:
    """Build it from the parts, as a mirror that serves does."""
    said = settings(folder, "http://127.0.0.1:9", **{**EVERYTHING, **changes})
    async with opened_parts(said, holder="test") as parts:
        ways = Ways.of(said)
        yield application(parts, ways, access_of(said, ways.names, parts.passes), Senders(0))
