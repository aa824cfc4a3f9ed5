"""``mirror node``."""

import socket

import click

from mirror.cli.options import ending_well, run
from mirror.cli.text import plain
from mirror.config import LoggingSettings, LogLevel, parse_duration
from mirror.config.kinds import web_url
from mirror.values import DEFAULT_HOST, InvalidModelName, ModelName

_FIND_S = 60.0


def _hub(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return value if value == "auto" else _url(ctx, param, value)


def _url(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        return web_url(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}") from error


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    try:
        found = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}") from error
    if found < 1:
        raise click.BadParameter(f"{value!r} is less than a second")
    return found


def _models(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[ModelName, ...]:
    try:
        names = tuple(ModelName.parse(one.strip()) for one in value.split(",") if one.strip())
    except InvalidModelName as error:
        raise click.BadParameter(str(error)) from error
    for one in names:
        if one.host != DEFAULT_HOST:
            raise click.BadParameter(f"{one} names a registry of its own; models come through the hub")
    return names


@click.command()
@click.option(
    "--hub",
    metavar="URL",
    callback=_hub,
    required=True,
    envvar="SERVER_URL",
    show_envvar=True,
    help="The hub, such as http://hub:11434; auto finds one that announces itself (hub.announce).",
)
@click.option(
    "--id",
    "node_id",
    envvar="NODE_ID",
    show_envvar=True,
    help="What this node is called at the hub; else the name of the machine.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    envvar="NODE_PORT",
    show_envvar=True,
    help="Port to listen on.",
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on; else all.")
@click.option(
    "--ollama",
    metavar="URL",
    callback=_url,
    default="http://127.0.0.1:11434",
    show_default=True,
    envvar="OLLAMA_BASE_URL",
    show_envvar=True,
    help="The Ollama of this machine.",
)
@click.option(
    "--interval",
    metavar="TIME",
    callback=_seconds,
    default="30s",
    show_default=True,
    envvar="HEARTBEAT_INTERVAL",
    show_envvar=True,
    help="Time between two heartbeats.",
)
@click.option(
    "--require",
    metavar="MODELS",
    callback=_models,
    default="",
    envvar="REQUIRED_MODELS",
    show_envvar=True,
    help="Models that the Ollama has to have, with commas between them; what it lacks is pulled through the hub.",
)
@click.option(
    "--token", envvar="NODE_TOKEN", show_envvar=True, help="The hub's token (hub.token there); better by NODE_TOKEN."
)
@click.option(
    "--slots",
    type=click.IntRange(1, 1000),
    envvar="NODE_SLOTS",
    show_envvar=True,
    help="Requests that it runs at once.",
)
@click.option(
    "--weight",
    type=click.FloatRange(0.001, 1000),
    envvar="NODE_WEIGHT",
    show_envvar=True,
    help="How much of the work it wants: 2 is twice as much as 1.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
    envvar="LOG_LEVEL",
    show_envvar=True,
)
@ending_well
def node(
    hub: str,
    node_id: str | None,
    port: int,
    host: str | None,
    ollama: str,
    interval: float,
    require: tuple[ModelName, ...],
    token: str | None,
    slots: int | None,
    weight: float | None,
    log_level: str,
) -> None:
    """Give this machine's Ollama to a hub, until it is told to stop.

    It tells the hub every 30 seconds, and at once when they change, which models are here and how busy the machine is,
    and hands on what the hub sends. It needs no store, and goes on when the hub or the Ollama is started anew.

    \b
    Examples:
      mirror node --hub http://hub:11434
      mirror node --hub http://hub:11434 --id gpu1 --require llama3.2,qwen3:8b
      SERVER_URL=http://hub:11434 NODE_TOKEN=... mirror node
    """
    from mirror.app.logs import set_up_logs
    from mirror.hub.agent import RunningAgent, run_agent
    from mirror.hub.settings import NodeSettings

    set_up_logs(LoggingSettings(level=LogLevel(log_level.upper())))
    if hub == "auto":
        from mirror.hub.nearby import found

        hub = run(found(_FIND_S))
    settings = NodeSettings(
        hub=hub,
        node_id=node_id or socket.gethostname(),
        host=host or None,
        port=port,
        ollama=ollama,
        interval_s=interval,
        required=require,
        token=token or None,
        slots=slots,
        weight=weight,
    )

    def ready(agent: RunningAgent) -> None:
        plain(f"node {settings.node_id} of {hub} answers at {agent.url}")

    run(run_agent(settings, ready))
