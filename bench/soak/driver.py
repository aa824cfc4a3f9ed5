"""What every worker of a soak shares: whom to ask, when to rest, and where errors are told apart."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field

import aiohttp

from bench.soak.causes import Cause, Failed, Timeline, Work, foreseen
from bench.soak.models import Catalog
from bench.soak.record import Record
from bench.soak.servers import Mirror, Ollama, Program

LONGEST_S = 40.0
"""The longest that anything asked may take; what is not answered by then hangs."""
LONG_S = 150.0
"""The same for what is done in the background meanwhile, and tried again there."""


class Wrong(Exception):
    """An answer that is not the one that was to be had; the text is the kind of error, such as ``status 503``."""

    def __init__(self, error: str, detail: str = "") -> None:
        self.error = error
        self.detail = detail
        super().__init__(f"{error} {detail}".strip())


class Left(Exception):
    """The client left on purpose; nothing went wrong."""


class Gate:
    """Lets workers through, or has them rest."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.busy_with: Counter[str] = Counter()
        self._impatient: set[asyncio.Timeout] = set()

    async def entered(self) -> None:
        """Wait until there is work."""
        await self._open.wait()

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Be at work."""
        self.busy_with[what] += 1
        try:
            yield
        finally:
            self.busy_with[what] -= 1

    def close(self) -> None:
        """Have nobody begin anything more, and those leave who wait for what may take long."""
        self._open.clear()
        for limit in self._impatient:
            limit.reschedule(asyncio.get_running_loop().time())

    @contextmanager
    def leaving(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Leave once there is to be rest."""
        self._impatient.add(limit)
        try:
            yield
        finally:
            self._impatient.discard(limit)

    def open(self) -> None:
        """Work again."""
        self._open.set()

    @property
    def closing(self) -> bool:
        """Whether what can wait is to end."""
        return not self._open.is_set()

    async def resting(self, longest_s: float) -> bool:
        """Wait until nobody is at work; False if somebody still is."""
        until = time.monotonic() + longest_s
        while self.busy_with.total() and time.monotonic() < until:  # noqa: ASYNC110  # with a deadline, which an event has not
            await asyncio.sleep(0.05)
        return not self.busy_with.total()


@dataclass
class Driver:
    """The parts of one soak."""

    mirror: Mirror
    upstream: Program
    ollama: Ollama
    node: Ollama
    catalog: Catalog
    dice: random.Random
    record: Record = field(default_factory=Record)
    timeline: Timeline = field(default_factory=Timeline)
    gate: Gate = field(default_factory=Gate)
    damaged: dict[str, set[str]] = field(default_factory=dict)
    """What blobs hash to that were damaged at rest, by their digest; kept after they were found."""
    up: bool = False
    """Whether the mirror serves."""

    @property
    def url(self) -> str:
        """Where the mirror is."""
        return self.mirror.url

    @asynccontextmanager
    async def asking(
        self, work: Work, what: str = "", *, lies: bool = False, waits: bool = False
    ) -> AsyncIterator[None]:
        """Count one request, and tell apart how it ends; nothing that was foreseen comes out of here.

        ``lies`` says that what is asked for is itself a lie, which may fail at any time; ``waits``, that it may take
        long without anything being wrong, and is left when there is to be rest.
        """
        begun, error, detail = time.monotonic(), "", ""
        self.record.requests[work] += 1
        try:
            async with asyncio.timeout(LONG_S if waits else LONGEST_S) as limit:
                with self.gate.leaving(limit) if waits else nullcontext():
                    yield
        except Left:
            self.record.done["clients that left in the middle"] += 1
        except Wrong as wrong:
            error, detail = wrong.error, wrong.detail
        except TimeoutError:
            error = "" if waits and self.gate.closing else Failed.LATE
        except aiohttp.ClientConnectorError as problem:
            error, detail = Failed.REFUSED, str(problem)
        except (aiohttp.ClientError, ConnectionError, ValueError) as problem:
            error, detail = Failed.BROKEN, repr(problem)
        if not error:
            return
        causes = self.timeline.causes(begun, time.monotonic()) | ({Cause.LIE} if lies else set())
        cause = foreseen(work, error, causes)
        took = f"after {time.monotonic() - begun:.1f} s" + (f", while {sorted(causes)}" if causes else "")
        self.record.failed(work, error, cause, f"{what} {detail} {took}"[:400])

    @asynccontextmanager
    async def session(self, user: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
        """A client with connections of its own, which end with it."""
        headers = {"X-User-ID": user} if user else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
            yield session

    @contextmanager
    def trouble(self, cause: Cause, what: str) -> Iterator[None]:
        """Something is wrong while the block lasts."""
        one = self.timeline.begin(cause, what, time.monotonic())
        try:
            yield
        finally:
            one.ended = time.monotonic()


async def good(answer: aiohttp.ClientResponse, *statuses: int) -> None:
    """Raise Wrong for an answer of another status than these, or 200."""
    if answer.status not in (statuses or (200,)):
        said = answer.headers.get("X-Mirror-Error") or (await answer.content.read(300)).decode("utf-8", "replace")
        raise Wrong(f"status {answer.status}", said)
