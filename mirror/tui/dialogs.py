"""What lies over the view for a moment: a question in one line, and the keys."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

_KEYS = (
    ("j k  ↓ ↑", "move in the pane; g and G go to its ends"),
    ("Tab  Shift+Tab", "the next pane, the one before"),
    ("b  u", "users: block the selected one, unblock"),
    ("d  e", "backends: drain (nothing new there), enable"),
    ("n", "pulls: fetch the selected one now, at any hour"),
    ("h  ?", "these keys; Escape closes them"),
)
_NOTE = (
    "What changes the mirror takes its own machine, or a key that is good for admin (OLLAMA_MIRROR_API_KEY); "
    "looking changes nothing."
)


class Question(ModalScreen[bool]):
    """Asks in one line at the bottom; y is yes, anything else that answers is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)"),
        Binding("n,q,escape,enter,ctrl+c", "dismiss(False)"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Make its line."""
        yield Static(Content(f" {self._text}"), id="question")


class Help(ModalScreen[bool]):
    """Shows the keys; ends with whether its reader wants to leave altogether."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h,question_mark,escape,enter", "dismiss(False)"),
        Binding("q,ctrl+c", "dismiss(True)"),
    ]

    def __init__(self, leaving: str) -> None:
        """``leaving`` says what q does."""
        super().__init__()
        self._keys = (*_KEYS, ("q  Escape", leaving))

    def compose(self) -> ComposeResult:
        """Make its box."""
        lines = [Content.assemble((f"{keys:<16}", "bold $text-accent"), what) for keys, what in self._keys]
        box = Static(Content("\n").join([*lines, Content(""), Content.styled(_NOTE, "$foreground-muted")]), id="keys")
        box.border_title = "mirror top"
        yield box
