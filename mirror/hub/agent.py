"""A node's agent: an address for the hub to run jobs at, heartbeats, and the models that it has to have."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from mirror.errors import SettingsError
from mirror.hub.heart import Heart
from mirror.hub.machine import Machine
from mirror.hub.node import parse_heartbeat
from mirror.hub.node_face import NodeFace
from mirror.hub.required import Required
from mirror.hub.settings import NodeSettings
from mirror.ollama import Backend, Ollama

log = structlog.get_logger(__name__)

_CONNECT_S = 5.0
_SHUTDOWN_S = 5.0


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """An agent that serves at ``port``; ``url`` is where this machine reaches it."""

    settings: NodeSettings
    port: int
    url: str


async def run_agent(settings: NodeSettings, ready: Callable[[RunningAgent], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the process at once. Raises as ``running_agent``."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_end, stop, number)
    async with running_agent(settings) as agent:
        ready(agent)
        await stop.wait()
        log.info("stopping", answers_may_take_s=_SHUTDOWN_S)


@asynccontextmanager
async def running_agent(settings: NodeSettings, machine: Machine | None = None) -> AsyncIterator[RunningAgent]:
    """Serve and send heartbeats while the context lasts.

    Raises:
        SettingsError: the address cannot be listened on.
        InvalidHeartbeat: no hub would take a node of such a name.
    """
    parse_heartbeat({"node_id": settings.node_id, "port": 1})
    async with AsyncExitStack() as stack:
        backend = Backend(settings.ollama, _CONNECT_S)
        stack.push_async_callback(backend.close)
        ollama = Ollama(backend)
        runner = web.AppRunner(
            NodeFace(backend, settings.token).application(),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
        )
        stack.push_async_callback(runner.cleanup)
        port = await _listening(runner, settings)
        heart = Heart(settings, port, ollama, machine or Machine())
        stack.push_async_callback(heart.close)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for task in (
            group.create_task(heart.run(), name="heartbeats"),
            group.create_task(Required(settings.required, ollama, settings.hub).run(), name="required models"),
        ):
            stack.callback(task.cancel)
        here = settings.host if settings.host not in (None, "0.0.0.0", "::") else "127.0.0.1"  # noqa: S104  # compared
        yield RunningAgent(settings, port, f"http://[{here}]:{port}" if ":" in str(here) else f"http://{here}:{port}")


async def _listening(runner: web.AppRunner, settings: NodeSettings) -> int:
    """Listen; return the port. Raises SettingsError."""
    await runner.setup()
    try:
        # Of all addresses each would be given a port of its own.
        host = settings.host or (None if settings.port else "0.0.0.0")  # noqa: S104  # the hub has to reach it
        await web.TCPSite(runner, host, settings.port).start()
    except (OSError, OverflowError) as error:
        where = f"{settings.host or '*'}:{settings.port}"
        raise SettingsError("--port", f"cannot listen on {where}: {error}", "flags or environment") from error
    return int(runner.addresses[0][1])


def _stop_or_end(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        os._exit(128 + number)
    stop.set()
