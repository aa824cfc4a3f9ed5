"""aiohttp's connection, with bounds of ours: time for the first head, size of every head, a place among the guests."""

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from mirror.config.sections import ListenSettings
from mirror.listen.guests import Guest, Guests

_END = b"\r\n\r\n"
_LINE = 8190
_FIELDS = 64
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"  # RFC 6585 §5
)
_NO_TARGET = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Visitor(web.RequestHandler):
    """One connection that the application answers; ``first`` are bytes read from it before.

    ``proxied``: it began with CONNECT, so to the client we are a proxy, and names of other machines are theirs.

    Heads after the first have ``listen.idle_timeout`` to come: aiohttp closes what has waited for so long.
    """

    __slots__ = ("_bounds", "_first", "_guest", "_guests", "_head", "_in_head", "_tail", "_timer", "proxied")

    def __init__(
        self,
        server: web.Server,
        bounds: ListenSettings,
        guests: Guests,
        guest: Guest,
        first: bytes,
        *,
        proxied: bool,
    ) -> None:
        line = min(_LINE, bounds.max_head)
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=bounds.idle_timeout,
            access_log=None,  # type: ignore[arg-type]  # as AppRunner takes it: None writes none
            max_line_size=line,
            max_field_size=line,
            max_headers=_FIELDS,
            auto_decompress=False,  # bodies are passed on as they come, and none of ours is ever compressed
        )
        self.proxied = proxied
        self._bounds = bounds
        self._guests = guests
        self._guest = guest
        self._first = first
        self._in_head = True
        self._head = 0
        self._tail = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: from now on the guest leaves by this transport."""
        super().connection_made(transport)
        self._guest.leave = self._abort
        self._timer = asyncio.get_running_loop().call_later(self._bounds.head_timeout, self._abort)
        if self._first:
            first, self._first = self._first, b""
            self.data_received(first)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head as they come; bodies are not counted."""
        if self._in_head and data and not self._head_goes_on(data):
            return
        super().data_received(data)
        request = self._current_request
        if self._messages and request is not None and not request.content.is_eof():
            # What came goes on neither with the body nor with a next request; aiohttp tells nobody who reads the body.
            request.content.set_exception(web.RequestPayloadError("what came is no chunk"))
            request.content.feed_eof()
            self.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End; the guest is gone."""
        self._stop_timer()
        self._guests.gone(self._guest)
        self._guest.left()
        super().connection_lost(exc)

    async def start(self) -> None:
        """Answer requests, one after the other; one whose target names a host that is none ends the connection.

        aiohttp fails to make a request of that, and would leave the connection open for ever, with no answer.
        """
        try:
            await super().start()
        except ValueError:
            if self.transport is not None:
                self.transport.write(_NO_TARGET)
            self.force_close()

    def asked(self) -> None:
        """A handler has begun: what comes next is no head."""
        self._in_head = False
        self._guests.busy(self._guest)

    def answered(self) -> None:
        """The handler has ended: what comes next is a head again."""
        if self.transport is not None:
            self._in_head, self._head, self._tail = True, 0, b""
            self._guests.idle(self._guest)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP without a line in the log: anybody can send ten thousand of them."""
        if isinstance(exc, HttpProcessingError):
            answer = web.Response(status=status, text=message or "this is no HTTP request")
            answer.force_close()
            return answer
        return super().handle_error(request, status, exc, message)

    def _head_goes_on(self, data: bytes) -> bool:
        """Look for the end of the head in ``data``; False where the head is too long and the connection ends."""
        if _END in self._tail + data:
            self._in_head = False
            self._stop_timer()
            self._guests.busy(self._guest)
            return True
        self._head += len(data)
        self._tail = data[-len(_END) + 1 :] if len(data) >= len(_END) else (self._tail + data)[-len(_END) + 1 :]
        if self._head <= self._bounds.max_head:
            return True
        if self.transport is not None:
            self.transport.write(_TOO_LARGE)
        self.force_close()
        return False

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
