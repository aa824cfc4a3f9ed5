"""``mirror serve``."""

import signal
from pathlib import Path

import click

from mirror.cli.options import config_option, ending_well, loaded, run, store_option
from mirror.cli.text import plain
from mirror.cli.top import check_view, logging_to_a_file, viewed
from mirror.config import Settings


@click.command()
@config_option
@store_option
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 lets the system choose.")
@click.option("--upstream", metavar="URL", help="The registry to mirror (upstream.url).")
@click.option("--offline/--online", default=None, help="Serve what is in the store and ask nobody.")
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False))
@click.option("--tui/--no-tui", default=False, help="Watch it in this terminal (mirror top); the log goes to a file.")
@ending_well
def serve(
    config_file: Path | None,
    store: Path | None,
    host: str | None,
    port: int | None,
    upstream: str | None,
    offline: bool | None,
    log_level: str | None,
    tui: bool,
) -> None:
    """Run the mirror until it is told to stop.

    \b
    Examples:
      mirror serve
      mirror serve --store /srv/models --port 80
      mirror serve --upstream http://other-mirror:11434
      mirror serve --offline
      mirror serve --tui

    SIGTERM or Ctrl-C stops it in order: replies may finish, fills are parked and go on at the next start.
    A second signal ends it at once; so may kill -9, at any time. SIGHUP has it read its settings again: limits,
    rules on models, windows, rates, weights and the log level change at once, and the log says what needs a restart.
    With --tui the log goes to logging.file, or else to mirror.log in the state folder.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves: settings are being read just now
    from mirror.app import RunningMirror
    from mirror.app import serve as serve_until_stopped
    from mirror.app.logs import set_up_logs

    flags: dict[str, object] = {
        "cache.directory": store and str(store),
        "server.host": host,
        "server.port": port,
        "upstream.url": upstream,
        "offline": offline,
        "logging.level": log_level,
    }

    def read() -> Settings:
        return loaded(config_file, flags).settings

    settings = read()
    if tui:
        check_view()
        settings = logging_to_a_file(settings)
    set_up_logs(settings.logging)

    def ready(mirror: RunningMirror) -> None:
        authority = mirror.url.partition("://")[2]
        plain(f"mirror serves {mirror.parts.store.layout.root} at {mirror.url}")
        plain(f"pull through it: ollama pull --insecure {authority}/library/llama3.2")

        if tui:
            plain(f"its log goes to {settings.logging.file}")

    run(serve_until_stopped(settings, ready, viewed(settings) if tui else None, read))
