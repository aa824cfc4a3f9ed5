"""What the file, the environment and the flags say, each as entries under the settings' own keys; nothing is judged."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mirror.config.aliases import FOREIGN, NAMES, NOT_SETTINGS, PREFIX, VARIABLES, Alias, unknown_key, unknown_variable
from mirror.config.sections import FIELDS, SECTIONS
from mirror.errors import SettingsError

_NULL = "tag:yaml.org,2002:null"
_HARMLESS = re.compile(r"'(?:.|\\.|<[^']*>)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One setting as one source says it: ``given`` as written, ``value`` after its alias was taken into account."""

    key: str
    name: str
    given: object
    value: object
    origin: str


class _Texts(yaml.BaseLoader):
    """YAML with null, lists, mappings and texts only, so that a file means the same as the environment.

    YAML 1.1's own guesses would make 0123 an octal number, 1:30 ninety and 2026-01-01 a date. BaseLoader also
    knows no tags, so no file can name a class to build.
    """

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Read one mapping; YAML 1.2 §3.2.1.3 wants keys unique, which PyYAML does not look at."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


_Texts.add_implicit_resolver(_NULL, re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
_Texts.add_constructor(_NULL, lambda _loader, _node: None)


def file_entries(file: Path) -> Iterator[Entry]:
    """Yield what ``file`` sets; null, for a setting or a section, sets nothing. Raises SettingsError."""
    origin = str(file)
    for name, given in _flat(_mapping(file), origin):
        alias = NAMES.get(name)
        if alias is None:
            raise SettingsError(name, unknown_key(name), origin)
        if given is not None:
            where = origin if name == alias.key else f"{origin}, {name}"
            yield Entry(key=alias.key, name=name, given=given, value=alias.value(given), origin=where)


def environment_entries(environ: Mapping[str, str]) -> Iterator[Entry]:
    """Yield what the variables set; an empty one sets nothing. Raises SettingsError."""
    for name in sorted(environ):
        ours = name.startswith(PREFIX) or name.removesuffix("_FILE") in FOREIGN
        if not ours or name in NOT_SETTINGS:
            continue
        origin = f"environment {name}"
        pointed = VARIABLES.get(name.removesuffix("_FILE"))
        alias = VARIABLES.get(name) or pointed
        if alias is None:
            raise SettingsError(name, unknown_variable(name), "environment")
        if not environ[name]:
            continue
        given = environ[name] if name in VARIABLES else _file_value(alias, environ[name], origin)
        yield Entry(key=alias.key, name=name, given=given, value=alias.value(given), origin=origin)


def flag_entries(flags: Mapping[str, object]) -> Iterator[Entry]:
    """Yield what the flags set; None is a flag that was not given. Raises SettingsError."""
    for key, given in flags.items():
        if key not in FIELDS:
            raise SettingsError(key, unknown_key(key), "flag")
        if given is not None:
            yield Entry(key=key, name=key, given=given, value=given, origin="flag")


def _file_value(alias: Alias, path: str, origin: str) -> str:
    # The path stays out of the messages: it may be the secret itself, put under the wrong name.
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(alias.key, f"the file it names cannot be read: {error.strerror}", origin) from None
    except ValueError:
        raise SettingsError(alias.key, "the file it names is no UTF-8 text", origin) from None
    if not text:
        raise SettingsError(alias.key, "the file it names is empty", origin)
    return text


def _flat(tree: Mapping[object, object], origin: str) -> Iterator[tuple[str, object]]:
    for top, value in tree.items():
        if top not in SECTIONS:
            yield str(top), value
        elif isinstance(value, dict):
            yield from ((f"{top}.{name}", inner) for name, inner in value.items())
        elif value is not None:
            raise SettingsError(str(top), "must be a group of settings", origin)


def _mapping(file: Path) -> Mapping[object, object]:
    origin = str(file)
    try:
        tree = yaml.load(file.read_bytes().decode("utf-8-sig"), Loader=_Texts)  # noqa: S506  # see _Texts
    except OSError as error:
        raise SettingsError("", f"cannot be read: {error.strerror}", origin) from error
    except yaml.MarkedYAMLError as error:
        raise SettingsError("", _yaml_problem(error), origin) from None
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError("", "is no text in UTF-8 without control characters", origin) from error
    except RecursionError as error:
        raise SettingsError("", "is nested too deeply", origin) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError("", "must be a mapping of sections, such as 'server:' with settings below it", origin)
    return tree


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    # What PyYAML quotes can be a part of a secret: only single characters and its own '<token>' names stay.
    said = ", ".join(part for part in (error.context, error.problem) if part)
    said = re.sub(r"'[^']*'", lambda quoted: quoted[0] if _HARMLESS.fullmatch(quoted[0]) else "that", said)
    return f"line {error.problem_mark.line + 1}: {said}" if error.problem_mark else said
