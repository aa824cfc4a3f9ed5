"""``mirror api schema|reference``."""

import json

import click

from mirror.cli.text import plain


@click.group()
def api() -> None:
    """Look at what a mirror answers over HTTP."""


@api.command("schema")
def print_schema() -> None:
    """Print the OpenAPI document, for programs; a running mirror has its own at /mirror/v1/openapi.json.

    \b
    Example:
      mirror api schema > openapi.json
    """
    from mirror.web.openapi import document

    plain(json.dumps(document(), indent=2))


@api.command("reference")
def print_reference() -> None:
    """Print every route with what it needs and takes, as Markdown.

    \b
    Example:
      mirror api reference | less
    """
    from mirror.web.openapi import reference

    plain(reference().rstrip("\n"))
