"""One pane: a table with a line of headings, and a cursor while it has the focus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.widget import Widget

from mirror.tui.fitting import GAP, Column, fitted, widths

_CURSOR = "$block-cursor-foreground on $block-cursor-background"
_HEADINGS = "bold $foreground-muted on $surface-lighten-1"
_HEADINGS_FOCUSED = "bold $text on $primary"

Cell = str | tuple[str, str]
"""What stands there, with a style if it is not to be plain."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row. ``key`` is what keys act on and how the cursor stays where it was; nothing acts on an empty one."""

    key: str
    cells: tuple[Cell, ...]


class Table(Widget, can_focus=True):
    """Shows rows that change under the reader; what does not fit is reached with the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "Pane", key_display="Tab"),
        Binding("shift+tab", "app.focus_previous", show=False),
        Binding("j,down", "move(1)", "Down", show=False),
        Binding("k,up", "move(-1)", "Up", show=False),
        Binding("g,home", "move(-1000000)", "First", show=False),
        Binding("G,end", "move(1000000)", "Last", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
    ]

    def __init__(self, columns: Sequence[Column], empty: str, *, id: str) -> None:  # noqa: A002  # Textual's name
        super().__init__(id=id)
        self._columns = columns
        self._empty = empty
        self._rows: Sequence[Row] = ()
        self._cursor = 0
        self._first = 0

    def show(self, rows: Sequence[Row], empty: str | None = None) -> None:
        """Show these rows; where there is none, ``empty``.

        The cursor goes with the row that it was moved to; one at the top stays there, whoever is first now.
        """
        key = self.selected if self._cursor else ""
        self._rows, self._empty = rows, self._empty if empty is None else empty
        self._put(next((at for at, row in enumerate(rows) if key and row.key == key), self._cursor))

    @property
    def selected(self) -> str:
        """The key of the row under the cursor, empty for none."""
        return self._rows[self._cursor].key if self._rows else ""

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self._put(self._cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by what is shown at once."""
        self._put(self._cursor + by * max(1, self._room))

    def on_click(self, event: Click) -> None:
        """Move the cursor to the row that is clicked."""
        at = event.get_content_offset(self)
        if at is not None and at.y:
            self._put(self._first + at.y - 1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Move the cursor down."""
        event.stop()
        self.action_move(1)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Move the cursor up."""
        event.stop()
        self.action_move(-1)

    def on_resize(self) -> None:
        """Keep the cursor in sight."""
        self._put(self._cursor)

    def render(self) -> Content:
        """Draw headings and the rows around the cursor, a cell free at either side."""
        room = max(1, self.size.width - 2)
        width = widths(self._columns, room)
        lines = [self._line(self._headings, width, _HEADINGS_FOCUSED if self.has_focus else _HEADINGS)]
        for at, row in enumerate(self._rows[self._first : self._first + self._room], self._first):
            lines.append(self._line(row.cells, width, _CURSOR if self.has_focus and at == self._cursor else ""))
        if not self._rows and self._room:
            lines.append(Content.styled(" " + fitted(self._empty, room), "$foreground-muted"))
        return Content("\n").join(lines)

    @property
    def _headings(self) -> tuple[Cell, ...]:
        first, count = self._columns[0].heading, len(self._rows)
        if count > self._room > 0:
            first = f"{first} {self._first + 1}-{min(count, self._first + self._room)}/{count}"
        return (first, *(one.heading for one in self._columns[1:]))

    def _line(self, cells: Sequence[Cell], width: Sequence[int], style: str) -> Content:
        """Put cells side by side; ``style``, where there is one, is in place of theirs."""
        parts: list[Cell] = [" "]
        for column, cell, cells_wide in zip(self._columns, cells, width, strict=True):
            if cells_wide:
                text, own = (cell, "") if isinstance(cell, str) else cell
                said = fitted(text, cells_wide, right=column.right)
                parts += [said if style or not own else (said, own), " " * GAP]
        line = Content.assemble(*parts)
        short = self.size.width - line.cell_length
        line = line[: self.size.width] if short < 0 else line + Content(" " * short)
        return line.stylize(style) if style else line

    @property
    def _room(self) -> int:
        """How many rows are shown at once."""
        return max(0, self.size.height - 1)

    def _put(self, cursor: int) -> None:
        self._cursor = max(0, min(cursor, len(self._rows) - 1))
        last = max(0, len(self._rows) - self._room)
        self._first = min(max(self._first, self._cursor - self._room + 1), self._cursor, last)
        self.refresh()
