"""The terminal view: looks each second, listens to the news, and asks the mirror for what keys want."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import datetime
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Footer, Static

from mirror.errors import ServerError
from mirror.tui.dialogs import Help, Question
from mirror.tui.fitting import fitted
from mirror.tui.news import changes
from mirror.tui.panes import Backends, Fills, Pulls, StoreLines, Users
from mirror.tui.reading import Reading
from mirror.tui.source import Source, refused
from mirror.tui.style import STYLE

_EACH_S, _SELDOM_S = 1.0, 30.0
_LONGEST_S = 10.0
_LISTEN_AGAIN_S, _PERHAPS_LATER_S = 5.0, 60.0
_TOO_MANY = 429
_OWN_WORD_S = 8.0
"""How long the answer to a key stands before news takes its place."""


class Top(App[bool]):
    """The view of one mirror. It ends with whether the mirror is to be stopped, which only one's own can be.

    ``stopping`` is given where the mirror runs in this very process: once it is set the view ends by itself, and who
    leaves is asked whether the mirror is to end too.
    """

    CSS = STYLE
    TITLE = "mirror top"
    ENABLE_COMMAND_PALETTE = False
    VERTICAL_BREAKPOINTS = [(0, "-close"), (34, "-roomy")]  # noqa: RUF012  # declared by Textual
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "leave", "Leave", key_display="q"),
        Binding("h,question_mark", "keys", "Keys", key_display="h"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("b,u", "elsewhere('users')", show=False),
        Binding("d,e", "elsewhere('backends')", show=False),
        Binding("n", "elsewhere('pulls')", show=False),
    ]

    def __init__(self, source: Source, stopping: asyncio.Event | None = None) -> None:
        super().__init__()
        self.each_s = _EACH_S
        """How often it looks."""
        self._source = source
        self._stopping = stopping
        self._again = asyncio.Event()
        self._title = Static(id="title")
        self._said = Static(id="said")
        self._users, self._backends, self._fills, self._pulls = Users(), Backends(), Fills(), Pulls()
        self._store = StoreLines()
        self._reading: Reading | None = None
        self._trouble = ""
        self._word = ""
        self._own_word_until = float("-inf")
        self._tells = False

    def compose(self) -> ComposeResult:
        """Put the panes below each other."""
        yield self._title
        yield from self._panes
        yield self._said
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look and to listen."""
        self._users.focus()
        self._show_title()
        self.run_worker(self._look_on())
        self.run_worker(self._listen())
        if self._stopping is not None:
            self.run_worker(self._end_with(self._stopping))

    @property
    def _panes(self) -> tuple[Users, Backends, Fills, Pulls, StoreLines]:
        return self._users, self._backends, self._fills, self._pulls, self._store

    # -- what is seen

    async def _look_on(self) -> None:
        """Look each second, or at once where a key has changed something; less often where that is too much."""
        while True:
            try:
                async with asyncio.timeout(_LONGEST_S):
                    self._show(await self._source.look())
            except ServerError as error:
                self._lose(*_why(error))
                if error.status == _TOO_MANY:
                    self.each_s = min(2 * self.each_s, _SELDOM_S)
            except TimeoutError:
                self._lose("no answer from", f"nothing came for {_LONGEST_S:g} s")
            with suppress(TimeoutError):
                async with asyncio.timeout(self.each_s):
                    await self._again.wait()
            self._again.clear()

    async def _listen(self) -> None:
        """Follow the news, and try again where they end or are not told."""
        while True:
            again_s = _LISTEN_AGAIN_S
            try:
                async with aclosing(self._source.news()) as news:
                    async for text in news:
                        self._tells = True
                        self._say(text)
            except ServerError as error:
                again_s = _PERHAPS_LATER_S if error.status else again_s
            self._tells = False
            await asyncio.sleep(again_s)

    async def _end_with(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self.exit(True)

    def _show(self, reading: Reading) -> None:
        if not self._tells and self._reading is not None:
            for text in changes(self._reading, reading):
                self._say(text)
        self._reading, self._trouble = reading, ""
        for pane in self._panes:
            pane.read(reading)
            pane.remove_class("-old")
        self._show_title()
        self._show_word()

    def _lose(self, what: str, why: str) -> None:
        begin, end = f"{what} {self._source.url}: ", "; trying again"
        room = max(20, self.size.width - 1 - len(begin) - len(end))
        self._trouble = f"{begin}{fitted(why, min(len(why), room))}{end}"
        for pane in self._panes:
            pane.add_class("-old")
        self._show_title()
        self._show_word()

    def _show_title(self) -> None:
        left, reading, right = f" mirror  {self._source.url}", self._reading, f"{datetime.now():%H:%M:%S} "  # noqa: DTZ005  # of this place
        if reading is not None:
            running = sum(one.active for one in reading.backends)
            queue = f"{len(reading.jobs)} queued{' (paused)' if reading.paused else ''}"
            right = f"{reading.waiting} waiting, {running} running, {queue}   {right}"
        space = " " * max(1, self.size.width - len(left) - len(right))
        self._title.update(Content(f"{left}{space}{right}"))

    def _say(self, text: str, *, own: bool = False) -> None:
        """Put a line at the bottom; the answer to a key stays there for a while."""
        now = asyncio.get_running_loop().time()
        if not own and now < self._own_word_until:
            return
        self._own_word_until = now + _OWN_WORD_S if own else float("-inf")
        self._word = f"{datetime.now():%H:%M:%S} {text}"  # noqa: DTZ005  # of this place
        self._show_word()

    def _show_word(self) -> None:
        said = Content.styled(f" {self._trouble}", "bold $text-error") if self._trouble else Content(f" {self._word}")
        self._said.update(said)

    # -- what keys do

    def action_leave(self) -> None:
        """Leave, or ask where the mirror would go on without anybody to see it."""
        if self._stopping is None:
            self.exit(False)
            return
        asked = Question("Stop the mirror? y stop the server, n go on")
        self.push_screen(asked, lambda yes: self.exit(True) if yes else None)

    async def action_quit(self) -> None:
        """Leave by Ctrl-Q as by q."""
        self.action_leave()

    def action_interrupt(self) -> None:
        """Leave at once, and stop the mirror that is one's own."""
        self.exit(self._stopping is not None)

    def action_keys(self) -> None:
        """Show the keys."""
        own = self._stopping is not None
        leaving = "stop the mirror, once that is confirmed" if own else "leave; the mirror goes on"

        def closed(leave: bool | None) -> None:
            if leave:
                self.action_leave()

        self.push_screen(Help(leaving), closed)

    def action_elsewhere(self, pane: str) -> None:
        """Say where a key belongs."""
        self._say(f"that key is for the {pane}: Tab goes there", own=True)

    def action_block(self) -> None:
        """Serve the selected user no more."""
        if user := self._users.selected:
            asked = f"Block {user}? What runs goes on, what is new is refused. y/n"
            self._do(lambda: self._source.block(user), asked)

    def action_unblock(self) -> None:
        """Serve the selected user again."""
        if user := self._users.selected:
            self._do(lambda: self._source.unblock(user))

    def action_drain(self) -> None:
        """Give the selected Ollama nothing new."""
        if backend := self._backends.selected:
            self._do(lambda: self._source.drain(backend), f"Give {backend} nothing new? y/n")

    def action_enable(self) -> None:
        """Give the selected Ollama work again."""
        if backend := self._backends.selected:
            self._do(lambda: self._source.enable(backend))

    def action_hurry(self) -> None:
        """Fetch the selected model now."""
        if job := self._pulls.selected:
            self._do(lambda: self._source.hurry(job))

    def _do(self, act: Callable[[], Awaitable[str]], asked: str = "") -> None:
        """Have the mirror do something, once its user has said y where that is ``asked``."""

        async def doing() -> None:
            try:
                self._say(await act(), own=True)
            except ServerError as error:
                self._say(f"read-only: {error}" if refused(error) else str(error), own=True)
            self._again.set()

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(doing())

        if asked:
            self.push_screen(Question(asked), answered)
        else:
            answered(True)


def _why(error: ServerError) -> tuple[str, str]:
    """Return what a mirror did that gave no answer, and why; its URL, which is said anyway, is left out."""
    if error.status:
        return "refused by", str(error)
    return "no answer from", str(error).partition(" does not answer: ")[2] or str(error)
