"""``mirror config check|show|schema``."""

import json
from pathlib import Path

import click

from mirror.cli.options import config_option, ending_well, json_option, loaded
from mirror.cli.text import columns, plain
from mirror.config import not_yet, reference, rows, schema


@click.group()
def config() -> None:
    """Look at the settings: where they come from, whether they are right."""


@config.command()
@config_option
@ending_well
def check(config_file: Path | None) -> None:
    """Say whether the settings can be used; the first problem otherwise, with where it was set.

    \b
    Example:
      mirror config check --config /etc/mirror/config.yaml
    """
    read = loaded(config_file, {})
    plain(f"{read.file or 'the settings'}: good")
    for key in not_yet(read.settings):
        plain(f"{key}: accepted, without effect in this version")


@config.command()
@config_option
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
@json_option
@ending_well
def show(config_file: Path | None, origin: bool, as_json: bool) -> None:
    """Print every setting with its value; secrets as ***.

    \b
    Examples:
      mirror config show
      mirror config show --origin
    """
    found = rows(loaded(config_file, {}))
    if as_json:
        entries = {row.key: {"value": row.value_text, **({"origin": row.origin} if origin else {})} for row in found}
        plain(json.dumps(entries, indent=2))
        return
    head = ("KEY", "VALUE", *(("FROM",) if origin else ()))
    columns(head, [(row.key, row.value_text, *((row.origin,) if origin else ())) for row in found])


@config.command("schema")
def print_schema() -> None:
    """Print the JSON schema of the settings file, for editors.

    \b
    Example:
      mirror config schema > mirror.schema.json
    """
    plain(json.dumps(schema(), indent=2))


@config.command("reference")
def print_reference() -> None:
    """Print every setting with its default, as Markdown.

    \b
    Example:
      mirror config reference | less
    """
    plain(reference().rstrip("\n"))
