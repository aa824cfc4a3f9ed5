"""The settings as people and tools look at them: a table, the keys not acted on yet, a JSON schema. Secrets are ***."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mirror.config.loading import Loaded
from mirror.config.sections import FIELDS, Settings, value_of

NOT_YET: tuple[str, ...] = ()
"""Settings that this version accepts without acting on them: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting as it is shown."""

    key: str
    value_text: str
    origin: str
    description: str


def not_yet(settings: Settings, among: Iterable[str] = NOT_YET) -> list[str]:
    """Return the keys of ``among`` that are set away from their defaults."""
    default = Settings()
    return [key for key in among if value_of(settings, key) != value_of(default, key)]


def rows(loaded: Loaded) -> list[Row]:
    """Return every setting in the order of the documentation."""
    shown = loaded.settings.model_dump(mode="json")
    return [
        Row(key=key, value_text=_text(_at(shown, key)), origin=loaded.origins[key], description=field.description or "")
        for key, field in FIELDS.items()
    ]


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file, without the aliases."""
    return Settings.model_json_schema()


def _at(tree: dict[str, Any], key: str) -> object:
    section, _, name = key.rpartition(".")
    value: object = (tree[section] if section else tree)[name]
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
