"""One line per request."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from mirror.access import CALLER
from mirror.registry.sending import SENT

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
            bytes=_body_bytes(request, response),
            duration_s=round(time.monotonic() - begun, 4),
            client=caller.address if (caller := request.get(CALLER)) is not None else request.remote,
            **({"user": caller.user} if caller is not None and caller.key_id is not None else {}),
            cache=response.headers.get("X-Mirror-Cache") if response is not None else None,
        )
    return response


def _body_bytes(request: web.Request, response: web.StreamResponse | None) -> int:
    """How many bytes of body went out: as the handler counted them, or what the response holds."""
    if (counted := request.get(SENT)) is not None:
        return int(counted)
    held = response.body if isinstance(response, web.Response) and request.method != "HEAD" else None
    return len(held) if isinstance(held, bytes | bytearray) else 0


def wanted() -> bool:
    """Whether these lines would be written at all."""
    return logging.getLogger("mirror.access").isEnabledFor(logging.INFO)
