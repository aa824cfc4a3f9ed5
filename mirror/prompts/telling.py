"""A prompt job as server-sent events: what was said so far, each piece as it comes, and how it ended."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from aiohttp import web

from mirror.prompts.live import Live, Lives
from mirror.prompts.prompt import Prompt, PromptsUnusable, State
from mirror.prompts.prompts import Prompts
from mirror.prompts.reading import status_view

_STILL_HERE_S = 15.0
_STUCK_S = 60.0
_LEAVING_S = 0.5
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(slots=True)
class _Reader:
    """One client, and where it is: it has read so many characters of a try. That is what ids of events say."""

    response: web.StreamResponse
    tries: int = 0
    read: int = 0

    async def tell(self, event: str, said: Mapping[str, object]) -> None:
        """Send an event, once the client has room for it; a piece of text has no name.

        Raises ConnectionError: it reads nothing for so long that it is as good as gone.
        """
        name = f"event: {event}\n" if event else ""
        try:
            async with asyncio.timeout(_STUCK_S):
                await self.response.write(f"id: {self.tries}-{self.read}\n{name}data: {json.dumps(said)}\n\n".encode())
        except TimeoutError:
            raise ConnectionAbortedError(f"nothing was read for {_STUCK_S:g} s") from None

    async def follow(self, tries: int) -> None:
        """Go on with a try; where it is another than before, what the client has read of that one counts no more."""
        if tries == self.tries:
            return
        had, self.tries, self.read = self.read, tries, 0
        if had:
            await self.tell("restart", {})

    async def catch_up(self, live: Live, tries: int) -> None:
        """Send what a try has said so far, as long as it is the one that runs."""
        await self.follow(tries)
        while live.tries == tries and (text := live.since(self.read)):
            self.read += len(text)
            await self.tell("", {"text": text})


class Telling:
    """Answers with events. A slow reader gets what it missed later on, in larger pieces: nothing waits for it."""

    def __init__(self, prompts: Prompts, lives: Lives) -> None:
        self._prompts = prompts
        self._lives = lives
        self._times: set[asyncio.Timeout] = set()
        self._closed = False

    def close(self) -> None:
        """Have every reader leave, as the mirror stops; those that do not even read are cut off."""
        self._closed = True
        self._lives.tell()
        for time in self._times:
            time.reschedule(asyncio.get_running_loop().time() + _LEAVING_S)

    async def answer(self, request: web.Request, prompt: Prompt) -> web.StreamResponse:
        """Tell a client of a prompt job, from where its Last-Event-ID says, until that is over.

        It ends early where the database cannot be read, or the mirror stops: the client may come again.
        """
        response = web.StreamResponse(headers=_HEADERS)
        tries, read = _position(request.headers.get("Last-Event-ID", ""))
        reader = _Reader(response, tries, read)
        # A client that has left is no error.
        with suppress(ConnectionError, PromptsUnusable), self._lives.reading(prompt.id) as live:
            await response.prepare(request)
            try:
                async with self._bounded():
                    await self._follow(reader, live, prompt.id)
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
        return response

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """Bound what is done once the mirror stops. Raises TimeoutError."""
        async with asyncio.timeout(None) as time:
            self._times.add(time)
            try:
                yield
            finally:
                self._times.discard(time)

    async def _follow(self, reader: _Reader, live: Live, id_: str) -> None:
        while True:
            changed = live.changed
            if self._closed:
                return None
            if live.tries:
                await reader.catch_up(live, live.tries)
            else:
                prompt = await self._prompts.find(id_)
                if prompt is None:
                    return await reader.tell(State.CANCELLED.value, {"id": id_, "status": State.CANCELLED.value})
                if prompt.state.over:
                    return await self._end(reader, prompt)
            if not changed.is_set():
                await self._pause(reader, changed)

    async def _pause(self, reader: _Reader, changed: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(_STILL_HERE_S):
                await changed.wait()
        except TimeoutError:
            await reader.response.write(b": still here\n\n")

    async def _end(self, reader: _Reader, prompt: Prompt) -> None:
        if prompt.state is State.COMPLETED:
            kept = Live()
            kept.begin(prompt.tries)
            kept.say(await self._prompts.result(prompt))
            await reader.catch_up(kept, prompt.tries)
        await reader.tell(prompt.state.value, status_view(prompt))


def _position(text: str) -> tuple[int, int]:
    """Return a try and how much of it was read, as an id of ours says; any other is the beginning."""
    match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text.strip(), re.ASCII)
    return (int(match[1]), int(match[2])) if match else (0, 0)
