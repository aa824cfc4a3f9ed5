"""Which models stay whatever happens."""

import json
from collections.abc import Iterable
from threading import Lock
from uuid import uuid4

from mirror.errors import BrokenStore
from mirror.store.layout import Layout, write_whole
from mirror.store.partial import full
from mirror.values import ModelName, NamePattern


class Pins:
    """Patterns that settings and people pin. Those of people are in a file of their own, one JSON list.

    They are not in the database, for that may be lost, and no model may go because of it. Changing them blocks,
    and may be done from several threads.
    """

    def __init__(self, layout: Layout, fixed: Iterable[NamePattern] = (), *, host: str) -> None:
        """Read the file. Raises BrokenStore where it is not what ``add`` writes: nothing may be dropped then."""
        self._layout = layout
        self._path = layout.state / "pins.json"
        self._fixed = tuple(fixed)
        self._host = host
        self._changing = Lock()
        self._added = self._read()

    def why(self, name: ModelName) -> str | None:
        """Say which pattern pins a model, None when none does."""
        return next((f"pinned by {one}" for one in (*self._fixed, *self._added) if one.matches(name)), None)

    @property
    def of_settings(self) -> tuple[NamePattern, ...]:
        """The patterns of the settings."""
        return self._fixed

    @property
    def of_people(self) -> tuple[NamePattern, ...]:
        """The patterns that people added."""
        return self._added

    def add(self, pattern: NamePattern) -> bool:
        """Pin; False when it was pinned so already. Raises StoreFull."""
        with self._changing:
            if pattern in self._added:
                return False
            self._write((*self._added, pattern))
        return True

    def remove(self, pattern: NamePattern) -> bool:
        """Take a pin back; False when there is none in just these words. Raises StoreFull."""
        with self._changing:
            if pattern not in self._added:
                return False
            self._write(tuple(one for one in self._added if one != pattern))
        return True

    def _read(self) -> tuple[NamePattern, ...]:
        try:
            if self._path.exists() and not self._path.is_file():
                raise TypeError("it is no file")  # noqa: TRY301  # to be told as all that is wrong with it
            said = json.loads(self._path.read_bytes())
            if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
                raise TypeError("it is no list of texts")  # noqa: TRY301
            return tuple(NamePattern.parse(one, host=self._host) for one in said)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise BrokenStore(f"cannot read the pins in {self._path}: {error}; mend or remove the file") from error

    def _write(self, patterns: tuple[NamePattern, ...]) -> None:
        content = json.dumps([str(one) for one in patterns], indent=1).encode() + b"\n"
        try:
            write_whole(self._path, content, self._layout.temporary / uuid4().hex)
        except OSError as error:
            raise full(error) from error
        self._added = patterns
