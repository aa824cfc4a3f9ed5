"""One line per request."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger("mirror.access")


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log method, path, status, bytes, seconds and where the answer came from. Headers and queries never."""
    begun = time.monotonic()
    status: int | str = "left"
    response: web.StreamResponse | None = None
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as error:
        status = error.status
        raise
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        status = 500
        raise
    finally:
        log.info(
            "request",
            method=request.method,
            path=request.path,
            status=status,
            bytes=response.body_length if response is not None and response.prepared else 0,
            duration_s=round(time.monotonic() - begun, 4),
            client=request.remote,
            cache=response.headers.get("X-Mirror-Cache") if response is not None else None,
        )
    return response


def wanted() -> bool:
    """Whether these lines would be written at all."""
    return logging.getLogger("mirror.access").isEnabledFor(logging.INFO)
