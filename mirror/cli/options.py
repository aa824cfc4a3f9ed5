"""What every command shares: its options, the settings they lead to, and how failures end."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import update_wrapper, wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from mirror.config import Loaded, Settings, find_file, load, server_url
from mirror.errors import MirrorError, SettingsError, StoreBusy, StoreUnusable
from mirror.values import Invalid

P = ParamSpec("P")
T = TypeVar("T")

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Settings file; else OLLAMA_MIRROR_CONFIG, ./config.yaml or /etc/mirror/config.yaml.",
)
store_option = click.option("--store", type=click.Path(path_type=Path), help="The store's folder (cache.directory).")
server_option = click.option(
    "--server", metavar="URL", help="A running mirror, such as http://mirror:11434 [env: OLLAMA_MIRROR_SERVER]."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")


@dataclass(frozen=True, slots=True)
class Where:
    """Which mirror a command works on, and how it answers: the settings, the server to ask if one is named.

    ``file`` is the one that the settings were read from.
    """

    settings: Settings
    server: str | None
    as_json: bool
    file: Path | None = None


def on_a_mirror(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the options that say which mirror it works on; it gets them as a Where, first of all."""

    def run(config_file: Path | None, store: Path | None, server: str | None, as_json: bool, **others: Any) -> T:
        read = loaded(config_file, {"cache.directory": store and str(store)})
        # --store says that this machine's store is meant
        named = server or (None if store else server_url(os.environ))
        return command(Where(read.settings, named, as_json, read.file), **others)

    wrapped: Callable[..., T] = ending_well(update_wrapper(run, command))
    for option in (json_option, server_option, store_option, config_option):
        wrapped = option(wrapped)
    return wrapped


def loaded(config_file: Path | None, flags: dict[str, object]) -> Loaded:
    """Read the settings from file, environment and the flags that were given. Raises SettingsError."""
    file = config_file or find_file(os.environ, Path())
    return load(file, os.environ, {key: value for key, value in flags.items() if value is not None})


def ending_well(command: Callable[P, T]) -> Callable[P, T]:
    """Turn foreseen errors into one line on standard error and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except (SettingsError, StoreBusy, StoreUnusable) as error:
            fail(str(error), 2)
        except Invalid as error:
            fail(str(error), 2)
        except MirrorError as error:
            fail(str(error), 1)
        except KeyboardInterrupt:
            fail("interrupted; what has come so far is kept", 130)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)
        except OSError as error:
            fail(f"cannot write: {error.strerror}", 1)

    return run


def fail(message: str, code: int) -> NoReturn:
    """Print one line to standard error and end with ``code``."""
    click.echo(f"mirror: {message}", err=True)
    sys.exit(code)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; a group of foreseen errors is reported by its first."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as errors:
        foreseen = errors.subgroup((MirrorError, Invalid))
        if foreseen is None or errors.split((MirrorError, Invalid))[1] is not None:
            raise
        raise _first(foreseen) from errors


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
