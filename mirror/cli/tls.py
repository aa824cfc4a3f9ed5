"""``mirror tls init|show|trust|renew``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mirror.cli.options import config_option, ending_well, json_option, loaded, store_option
from mirror.cli.text import plain
from mirror.config import Settings
from mirror.errors import BadCertificate

if TYPE_CHECKING:
    from mirror.listen import Authority

_THEN = """\
The variables belong to the server (ollama serve, its systemd unit), not to the command line. With the CA trusted and
HTTPS_PROXY={url} in the server's environment, plain names come from the mirror: ollama pull llama3.2
How to set that, and the other ways: mirror setup"""


@click.group()
def tls() -> None:
    """The mirror's own CA, with which it stands in for the registry by HTTPS: make it, show it, have it trusted.

    \b
    Examples:
      mirror tls init
      mirror tls trust
      mirror tls show --json

    It can speak for the mirrored hosts and the mirror's own names only: name constraints bind it, so a machine that
    trusts it trusts it for nothing else.
    """


@tls.command()
@config_option
@store_option
@json_option
@ending_well
def init(config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Make the CA. It never writes over one that is there; a running mirror uses it at once.

    \b
    Examples:
      mirror tls init
      sudo -u mirror mirror tls init --config /etc/mirror/config.yaml
    """
    from mirror.listen import Authority, Names

    settings = _settings(config_file, store)
    made = Authority.make(settings.cache.state_directory.absolute(), Names.of(settings))
    _show(made, settings, as_json=as_json)
    if not as_json:
        plain("next: mirror tls trust says how other machines come to trust it")


@tls.command()
@config_option
@store_option
@json_option
@ending_well
def show(config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Print where the CA is, its fingerprint, how long it is good and which names it may speak for.

    \b
    Examples:
      mirror tls show
      mirror tls show --json | jq -r .fingerprint
    """
    settings = _settings(config_file, store)
    _show(_found(settings), settings, as_json=as_json)


@tls.command()
@config_option
@store_option
@json_option
@ending_well
def trust(config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Print what to run so that a machine trusts the CA: Debian, Fedora, macOS, Windows, an Ollama container.

    \b
    Example:
      mirror tls trust
    """
    settings = _settings(config_file, store)
    authority = _found(settings)
    if as_json:
        plain(json.dumps({**_facts(authority, settings), "instructions": _instructions(authority, settings)}, indent=2))
    else:
        plain(_instructions(authority, settings))


@tls.command()
@config_option
@store_option
@json_option
@ending_well
def renew(config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Make a new certificate for the CA's key, with the names and addresses that the mirror has today.

    \b
    Example:
      mirror tls renew

    Certificates for single names follow by themselves. Machines that trust the old certificate go on as before; names
    that are new reach only those that are given the new one.
    """
    from mirror.listen import Authority, Names

    settings = _settings(config_file, store)
    made = Authority.renew(settings.cache.state_directory.absolute(), Names.of(settings))
    _show(made, settings, as_json=as_json)


def _settings(config_file: Path | None, store: Path | None) -> Settings:
    return loaded(config_file, {"cache.directory": store and str(store)}).settings


def _found(settings: Settings) -> "Authority":
    from mirror.listen import Authority

    state = settings.cache.state_directory.absolute()
    found = Authority.load(state)
    if found is None:
        raise BadCertificate(f"there is no CA in {state / 'tls'}; mirror tls init makes one")
    return found


def _facts(authority: "Authority", settings: Settings) -> dict[str, object]:
    from mirror.listen.ca import certificate_file, key_file

    state = settings.cache.state_directory.absolute()
    return {
        "certificate": str(certificate_file(state)),
        "key": str(key_file(state)),
        "fingerprint": authority.fingerprint,
        "not_before": authority.certificate.not_valid_before_utc.isoformat(),
        "not_after": authority.certificate.not_valid_after_utc.isoformat(),
        "names": authority.names,
    }


def _show(authority: "Authority", settings: Settings, *, as_json: bool) -> None:
    facts = _facts(authority, settings)
    if as_json:
        plain(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        said = ", ".join(value) if isinstance(value, list) else value
        plain(f"{name.replace('_', ' '):<12} {said}")


def _instructions(authority: "Authority", settings: Settings) -> str:
    from mirror.listen.ca import certificate_file
    from mirror.web.steps_to import trust

    url = settings.server.public_url or f"http://MIRROR:{settings.server.port}"
    lines = [f"The CA is {certificate_file(settings.cache.state_directory.absolute())}", ""]
    for step in trust(url, authority.fingerprint, url):
        lines += [f"{step.where}:", *(f"  {line}" for line in step.lines), ""]
    return "\n".join([*lines, _THEN.format(url=url)])
