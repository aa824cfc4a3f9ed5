"""The command ``mirror``."""

import click

from mirror import __version__
from mirror.cli.api import api
from mirror.cli.bench import bench
from mirror.cli.carrying import export_models, import_models
from mirror.cli.completion import completion
from mirror.cli.config import config
from mirror.cli.demo import demo
from mirror.cli.doctor import doctor
from mirror.cli.keeping import gc, pin, repair, scrub, unpin, usage
from mirror.cli.keys import key
from mirror.cli.models import list_models, prefetch, remove, show, verify
from mirror.cli.node import node
from mirror.cli.pulls import pulls
from mirror.cli.rollback import rollback
from mirror.cli.serve import serve
from mirror.cli.setup import setup
from mirror.cli.status import status
from mirror.cli.tls import tls
from mirror.cli.top import top
from mirror.cli.turns import backends, users
from mirror.cli.updating import outdated, update

_HELP = """A mirror between a LAN's Ollamas and the internet.

\b
Serve it, and pull through it from any machine:
  mirror serve --store /srv/models
  ollama pull --insecure MIRROR:11434/library/llama3.2

\b
Fetch ahead, look, tidy:
  mirror prefetch llama3.2 qwen3:8b
  mirror list
  mirror pin 'llama3.2:*'
  mirror gc --dry-run

Commands find a running mirror by --server, OLLAMA_MIRROR_SERVER or the store they are given, and work on the
store themselves when none runs.

Exit codes: 0 done; 1 it could not be done; 2 wrong use, a bad setting, or a store that cannot be used;
130 interrupted.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mirror")
def main() -> None:
    """Hold the commands together."""


for command in (
    *(serve, prefetch, list_models, show, remove),
    *(outdated, update, rollback),
    *(usage, gc, pin, unpin, scrub, repair, verify),
    *(export_models, import_models),
    *(pulls, key),
    *(users, backends, node, top),
    *(status, config, api, setup, tls, doctor, demo, bench, completion),
):
    main.add_command(command)
