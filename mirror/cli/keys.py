"""``mirror key add|list|revoke|forget``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import Where, fail, on_a_mirror, run, yes_option
from mirror.cli.text import ago, columns, plain
from mirror.config import parse_duration
from mirror.errors import BadKey

if TYPE_CHECKING:
    from mirror.access.desk import Desk
    from mirror.client import AdminClient

View = dict[str, Any]

_MADE = """\
{secret}

This is shown once. Who has it may: {scopes}{until}. To use it:
  curl -H 'Authorization: Bearer KEY' {url}/api/tags
  skopeo copy --src-creds any:KEY docker://MIRROR/library/llama3.2 dir:llama3.2
  OLLAMA_MIRROR_API_KEY=KEY mirror list --server {url}"""
_OLLAMA = "The Ollama with this key may: {scopes}{until}. It signs by itself; nothing is to be set on its machine."
_CLOSES = {
    "pull": "From now on pulling needs a key: an Ollama has to be brought in by --ollama, other clients show theirs.",
    "push": "From now on pushing needs a key, on this machine too.",
    "api": "From now on /api and /v1 need a key.",
    "admin": "From now on what changes the mirror needs a key; commands on this machine go on without.",
}
_OPENS = {
    "pull": "everybody may pull",
    "push": "this machine pushes without a key",
    "api": "everybody may use /api and /v1",
    "admin": "everybody on this machine may change the mirror",
}


@click.group()
def key() -> None:
    """Keys: who may pull, push, use the API, or change the mirror.

    \b
    Examples:
      mirror key add laptop --scope pull --ollama id_ed25519.pub
      mirror key add chat --scope api --expires 90d
      mirror key list
      mirror key revoke laptop

    What no key was ever made for is open to everybody, except for what changes the mirror, which is open on its own
    machine only. Without --server the file of keys is changed where it is; a running mirror sees it within a second.
    """


@key.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(["pull", "push", "api", "admin"]), help="Again for more."
)
@click.option("--user", metavar="USER", help="Who it belongs to, in rules on models; else NAME.")
@click.option("--expires", metavar="TIME", help="How long it is good, such as 30d; else until it is revoked.")
@click.option(
    "--ollama",
    "public",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The id_ed25519.pub of an Ollama, which then signs its requests for tokens with it.",
)
@on_a_mirror
def add(
    where: Where, name: str, scopes: tuple[str, ...], user: str | None, expires: str | None, public: Path | None
) -> None:
    """Make a key and print its secret, once. Unless said it is good for pull and api, that of an Ollama for pull.

    \b
    Examples:
      mirror key add chat --scope api --expires 90d
      mirror key add ci --scope pull --scope push --user builders
      mirror key add laptop --ollama id_ed25519.pub
      mirror key add boss --scope admin --json | jq -r .secret

    An Ollama's key is in the home of the user that runs it: ~/.ollama/id_ed25519.pub, or for the Linux service
    /usr/share/ollama/.ollama/id_ed25519.pub.
    """
    try:
        lasts_s = parse_duration(expires) if expires is not None else None
    except ValueError as error:
        raise click.BadParameter(f"{expires}: {error}", param_hint="--expires") from error
    line = _public_line(public) if public is not None else None
    view = _on(
        where,
        lambda desk: desk.add(name, scopes, user=user, lasts_s=lasts_s, ollama=line),
        lambda client: client.add_key(name, scopes, user=user, expires=expires, ollama=line),
    )
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    made = view["key"]
    url = where.server or where.settings.server.public_url or f"http://MIRROR:{where.settings.server.port}"
    until = f", until {made['expires']}" if made["expires"] else ""
    said = _MADE if view["secret"] else _OLLAMA
    plain(said.format(secret=view["secret"], scopes=", ".join(made["scopes"]), until=until, url=url))
    for scope in view["closes"]:
        plain(_CLOSES[scope])


@key.command("list")
@on_a_mirror
def list_keys(where: Where) -> None:
    """List the keys, those that have ended among them, and what needs a key now.

    \b
    Examples:
      mirror key list
      mirror key list --json | jq -r '.keys[] | select(.state == "live") | .name'
    """
    view = _on(where, lambda desk: desk.keys(), lambda client: client.keys())
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    columns(
        ("ID", "NAME", "KIND", "USER", "SCOPES", "STATE", "MADE", "EXPIRES"),
        [
            (
                one["id"],
                one["name"],
                one["kind"],
                one["user"],
                " ".join(one["scopes"]),
                one["state"],
                ago(one["created"]),
                one["expires"] or "-",
            )
            for one in view["keys"]
        ],
    )
    plain(f"a key is needed for: {', '.join(view['guarded']) or 'nothing'}")


@key.command()
@click.argument("name", metavar="NAME|ID")
@on_a_mirror
def revoke(where: Where, name: str) -> None:
    """End a key at once, and all that was got with it. What it closed stays closed, and it stays in the list.

    \b
    Example:
      mirror key revoke laptop
    """
    view = _on(where, lambda desk: desk.revoke(name), lambda client: client.revoke_key(name))
    plain(json.dumps(view, indent=2) if where.as_json else f"{_named(view)} is revoked")


@key.command()
@click.argument("name", metavar="NAME|ID")
@yes_option
@on_a_mirror
def forget(where: Where, name: str, yes: bool) -> None:
    """Take a key out of the list for good. What needed a key because of it alone is open afterwards; asks first.

    \b
    Examples:
      mirror key forget laptop
      mirror key forget 1f2e3d4c --yes
    """
    if not yes:
        asked = _on(
            where,
            lambda desk: desk.forget(name, dry_run=True),
            lambda client: client.forget_key(name, dry_run=True),
        )
        opens = "; ".join(_OPENS[scope] for scope in asked["opens"]) or "nothing is opened by that"
        try:
            click.confirm(f"Forget {_named(asked)}? Afterwards: {opens}.", abort=True, err=True)
        except click.Abort:
            fail("nothing was changed; --yes forgets without asking", 1)
    view = _on(
        where,
        lambda desk: desk.forget(name, dry_run=False),
        lambda client: client.forget_key(name, dry_run=False),
    )
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    plain(f"{_named(view)} is forgotten")
    for scope in view["opens"]:
        plain(f"now {_OPENS[scope]}")


def _named(view: View) -> str:
    return f"the key {view['key']['name']} ({view['key']['id']})"


def _on(where: Where, here: Callable[["Desk"], View], there: Callable[["AdminClient"], Any]) -> View:
    """Do it in the file of this machine's store, or on the mirror that was named."""
    from mirror.cli.reach import keys_of

    if where.server is None:
        from mirror.access import Keyring
        from mirror.access.desk import Desk

        settings = where.settings
        return here(Desk(Keyring(settings.cache.state_directory.absolute()), settings.security))
    server = where.server

    async def ask() -> View:
        async with keys_of(where.settings, server) as client:
            view: View = await there(client)
            return view

    return run(ask())


def _public_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(4096)
    except OSError as error:
        raise BadKey(f"cannot read {path}: {error.strerror}") from error
    lines = [one for one in raw.decode("ascii", "replace").splitlines() if one.strip()]
    if len(lines) != 1:
        raise BadKey(f"{path} is not one line; give the file id_ed25519.pub of the Ollama, not id_ed25519")
    return lines[0]
