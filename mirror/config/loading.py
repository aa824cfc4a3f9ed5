"""From the file, the environment and the flags to settings, each knowing where it was set."""

import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mirror.config.aliases import CONFIG_VARIABLE, SERVER_VARIABLE
from mirror.config.groups import Upstreams
from mirror.config.kinds import DatabaseUrl, Secret, web_url, without_credentials
from mirror.config.sections import FIELDS, SECTIONS, Settings, is_a, is_a_list_of_groups
from mirror.config.sources import Entry, environment_entries, file_entries, flag_entries
from mirror.config.webhook import WebhookUrl
from mirror.errors import SettingsError

SYSTEM_FILE = Path("/etc/mirror/config.yaml")
DEFAULT = "default"

_PROBLEMS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "path_type": "must be a path",
    "string_type": "must be a text",
    "tuple_type": "must be a list, or a text with commas",
    "missing": "is missing",
    "extra_forbidden": "is no such setting",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, the origin of each by dotted key, and the file that was read."""

    settings: Settings
    origins: dict[str, str]
    file: Path | None


def find_file(environ: Mapping[str, str], cwd: Path, system_file: Path = SYSTEM_FILE) -> Path | None:
    """Return the file to load: the one OLLAMA_MIRROR_CONFIG names, ``cwd``'s config.yaml, the system's, or None.

    A link that leads nowhere counts as a file, so that loading it says so.

    Raises:
        SettingsError: OLLAMA_MIRROR_CONFIG names what is not there.
    """
    named = environ.get(CONFIG_VARIABLE)
    if named:
        if not os.path.lexists(cwd / named):
            raise SettingsError("", f"there is no file {named}", f"environment {CONFIG_VARIABLE}")
        return cwd / named
    return next((file for file in (cwd / "config.yaml", system_file) if os.path.lexists(file)), None)


def server_url(environ: Mapping[str, str]) -> str | None:
    """Return the URL of the running mirror that OLLAMA_MIRROR_SERVER names, or None. Raises SettingsError."""
    text = environ.get(SERVER_VARIABLE)
    if not text:
        return None
    try:
        return web_url(text)
    except ValueError as error:
        problem = f"{error}, not {without_credentials(text)!r}"
        raise SettingsError("", problem, f"environment {SERVER_VARIABLE}") from None


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Return the settings: flags over the environment over the file over the defaults.

    Args:
        file: YAML or JSON; None reads none.
        environ: the process's environment; only OLLAMA_MIRROR_* is looked at.
        flags: values by dotted key; None is a flag that was not given.

    Raises:
        SettingsError: for the first thing that is wrong, naming the key and where it was set.
    """
    entries = _one_each(file_entries(file)) if file else {}
    entries |= _one_each(environment_entries(environ))
    entries |= _one_each(flag_entries(flags))
    try:
        settings = _settings(entries.values())
    except ValidationError as error:
        # Its cause would carry the values, secrets among them, into a traceback.
        raise _refusal(error, entries) from None
    origins = {key: entries[key].origin if key in entries else DEFAULT for key in FIELDS}
    return Loaded(settings=settings, origins=origins, file=file)


def _one_each(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the entries of one source by key, where two names for one key must agree."""
    chosen: dict[str, Entry] = {}
    for entry in entries:
        other = chosen.setdefault(entry.key, entry)
        if not _agree(other, entry):
            problem = f"{other.name} and {entry.name} set it to different values; keep one of them"
            raise SettingsError(entry.key, problem, entry.origin)
    return chosen


def _agree(one: Entry, other: Entry) -> bool:
    if one.value == other.value:
        return True
    try:
        return _settings([one]) == _settings([other])
    except ValidationError:
        return False


def _settings(entries: Iterable[Entry]) -> Settings:
    top: dict[str, object] = {}
    sections: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
    for entry in entries:
        section, _, name = entry.key.rpartition(".")
        (sections[section] if section else top)[name] = entry.value
    return Settings.model_validate({**top, **sections})


def _refusal(error: ValidationError, entries: Mapping[str, Entry]) -> SettingsError:
    problems: dict[str, str] = {}
    for one in error.errors(include_url=False, include_input=False):
        own = 2 if one["loc"][0] in SECTIONS else 1
        key, inner = (".".join(str(part) for part in some) for some in (one["loc"][:own], one["loc"][own:]))
        said = one["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        said = _PROBLEMS.get(one["type"], said)
        problems.setdefault(key, f"{inner} {said}" if inner and is_a_list_of_groups(key) else said)
    key, problem = next(iter(problems.items()))
    more = f"; wrong too: {', '.join(list(problems)[1:])}" if len(problems) > 1 else ""
    return SettingsError(key, f"{problem}, not {_shown(entries[key])}{more}", entries[key].origin)


def _shown(entry: Entry) -> str:
    if any(is_a(entry.key, kind) for kind in (Secret, DatabaseUrl, WebhookUrl, Upstreams)):
        return "***"
    if not isinstance(entry.given, str):
        return without_credentials(reprlib.repr(entry.given))
    text = without_credentials(entry.given)
    return repr(text if len(text) <= 200 else f"{text[:200]}…")
