"""The panes: what is shown of users, Ollamas, fills, pulls and the store, and the keys that act on a row."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from mirror.tui.fitting import Column, bar, fitted
from mirror.tui.reading import Backend, Fill, Job, Reading, User
from mirror.tui.table import Cell, Row, Table
from mirror.wording import lasting, size

_DIM = "$foreground-muted"
_GOOD, _BUSY, _BAD = "$text-success", "$text-warning", "bold $text-error"
_STATES = {"online": _GOOD, "draining": _BUSY, "degraded": _BUSY, "offline": _BAD, "downloading": _GOOD}
_BAR = 14


class Users(Table):
    """Who waits and runs, and what each has had."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "app.block", "Block"),
        Binding("u", "app.unblock", "Unblock"),
    ]
    COLUMNS = (
        Column("USERS", 14, 40),
        Column("WAITING", 7, right=True),
        Column("RUNNING", 7, right=True),
        Column("HAD", 6, 8, right=True, rank=1),
        Column("TOKENS", 8, 11, right=True, rank=2),
        Column("WEIGHT", 6, right=True, rank=3),
        Column("", 7, 200),
    )

    def __init__(self) -> None:
        super().__init__(self.COLUMNS, "nobody has asked for an answer yet", id="users")

    def read(self, reading: Reading) -> None:
        """Show the users of a look."""
        self.show([Row(one.name, _user(one)) for one in reading.users])


class Backends(Table):
    """The Ollamas."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "app.drain", "Drain"),
        Binding("e", "app.enable", "Enable"),
    ]
    COLUMNS = (
        Column("BACKENDS", 16, 40),
        Column("STATE", 8),
        Column("BUSY", 5, right=True),
        Column("CPU", 4, right=True, rank=2),
        Column("MODELS", 6, right=True, rank=3),
        Column("LOADED", 18, 200, rank=1),
    )

    def __init__(self) -> None:
        super().__init__(self.COLUMNS, "no Ollama is behind this mirror (proxy.backend, proxy.backends)", id="backends")

    def read(self, reading: Reading) -> None:
        """Show the Ollamas of a look."""
        self.show([Row(one.id, _backend(one)) for one in reading.backends])


class Fills(Table):
    """Blobs on their way in."""

    COLUMNS = (
        Column("FILLS", 14, 20),
        Column("PROGRESS", _BAR, rank=2),
        Column("", 4, right=True),
        Column("SIZE", 7, right=True),
        Column("RATE", 9, 10, right=True),
        Column("LEFT", 9, 10, right=True, rank=1),
        Column("READERS", 7, right=True, rank=3),
        Column("CONNECTIONS", 11, right=True, rank=4),
    )

    def __init__(self) -> None:
        super().__init__(self.COLUMNS, "nothing comes in", id="fills")

    def read(self, reading: Reading) -> None:
        """Show the fills of a look."""
        self.show([Row(one.digest, _fill(one)) for one in reading.fills])


class Pulls(Table):
    """The queue of pulls."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("n", "app.hurry", "Pull now")]
    COLUMNS = (
        Column("PULLS", 20, 40),
        Column("#", 3, right=True),
        Column("STATE", 11),
        Column("", 4, right=True),
        Column("SIZE", 7, right=True),
        Column("ASKED BY", 11, 24, rank=1),
        Column("NOTE", 8, 200, rank=2),
    )

    def __init__(self) -> None:
        super().__init__(self.COLUMNS, "nothing is queued", id="pulls")

    def read(self, reading: Reading) -> None:
        """Show the queue of a look; where it is empty, when its window opens."""
        empty = f"nothing is queued; {reading.window}" if reading.window else "nothing is queued"
        self.show([Row(one.id, _job(one)) for one in reading.jobs], empty)


class StoreLines(Static):
    """What the store holds of what it may, and what it has saved."""

    def __init__(self) -> None:
        super().__init__(id="store")
        self._reading = Reading()

    def read(self, reading: Reading) -> None:
        """Show the store of a look."""
        self._reading = reading
        self.refresh()

    def render(self) -> Content:
        """Draw a heading and two lines."""
        store, room = self._reading.store, max(1, self.size.width - 2)
        said = f"STORE  {store.directory}" if store is not None else "STORE"
        head = Content.styled(f" {fitted(said, room)} ", "bold $foreground-muted on $surface-lighten-1")
        lines = (Content.assemble(" ", *parts) for parts in (_held(self._reading), _saved(self._reading)))
        return Content("\n").join([head, *(line[: self.size.width] for line in lines)])


def _user(one: User) -> tuple[Cell, ...]:
    return (
        (one.name, "bold") if one.running or one.waiting else one.name,
        (str(one.waiting), _BUSY if one.waiting else _DIM),
        (str(one.running), _GOOD if one.running else _DIM),
        str(one.taken),
        f"{one.cost:.0f}",
        f"{one.weight:g}",
        ("blocked", _BAD) if one.blocked else "",
    )


def _backend(one: Backend) -> tuple[Cell, ...]:
    loaded = ", ".join(name.rpartition("/")[2] for name in one.loaded)
    note = "; ".join(filter(None, (one.problem, loaded)))
    return (
        one.id,
        (one.state, _STATES.get(one.state, "")),
        (f"{one.active}/{one.slots}", _GOOD if one.active else _DIM),
        f"{one.cpu:.0%}" if one.cpu is not None else ("-", _DIM),
        str(one.models),
        (note, _BAD) if one.problem else note,
    )


def _fill(one: Fill) -> tuple[Cell, ...]:
    share = one.here / one.size if one.size else 0.0
    return (
        one.short,
        (bar(share, _BAR), _GOOD),
        f"{int(100 * share)}%",
        size(one.size),
        f"{size(one.rate)}/s" if one.rate is not None else ("-", _DIM),
        lasting(one.left_s) if one.left_s is not None else ("-", _DIM),
        str(one.readers),
        str(one.connections),
    )


def _job(one: Job) -> tuple[Cell, ...]:
    done = f"{100 * one.done // one.size}%" if one.done is not None and one.size else ""
    note = one.error or ("waits for no window" if one.at_once else "")
    return (
        one.name,
        str(one.position) if one.position else ("-", _DIM),
        (one.state, _STATES.get(one.state, _DIM)),
        done,
        size(one.size) if one.size is not None else ("-", _DIM),
        ", ".join(one.who),
        (note, _BAD) if one.error else note,
    )


def _held(reading: Reading) -> list[Cell]:
    store = reading.store
    if store is None:
        return [("nothing is known of it", _DIM)]
    models = f"{store.models} model{'' if store.models == 1 else 's'}, {size(store.size)}"
    parts: list[Cell] = [models]
    if store.limit:
        share = store.size / store.limit
        parts += [" of ", size(store.limit), " ", (bar(share, 10), _BAD if share > 0.95 else _GOOD)]
    parts.append(f", {size(store.disk_free)} free")
    if store.incomplete:
        parts.append((f", {store.incomplete} incomplete", _BUSY))
    if store.damaged:
        parts.append((f", {store.damaged} damaged", _BAD))
    return parts


def _saved(reading: Reading) -> list[Cell]:
    traffic = reading.traffic
    asked = traffic.hits + traffic.misses
    share = f" ({100 * traffic.hits // asked}%)" if asked else ""
    return [
        f"hits {traffic.hits}{share}, misses {traffic.misses}, {size(traffic.served)} served, "
        f"{size(traffic.fetched)} fetched, ",
        (f"{size(traffic.saved)} saved", _GOOD if traffic.saved else ""),
    ]
