"""``mirror completion``."""

import click
from click.shell_completion import get_completion_class

from mirror.cli.text import plain


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a shell.

    \b
    Examples:
      mirror completion bash > /etc/bash_completion.d/mirror
      mirror completion zsh  > ~/.zfunc/_mirror
      mirror completion fish > ~/.config/fish/completions/mirror.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"{shell} cannot be completed by this version of click")
    plain(kind(context.find_root().command, {}, "mirror", "_MIRROR_COMPLETE").source())
