"""``mirror bench dispatch``."""

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mirror.cli.options import ending_well, fail, json_option, run
from mirror.cli.text import columns, plain
from mirror.config import LoggingSettings, LogLevel, parse_duration

if TYPE_CHECKING:
    from mirror.demo.stress import Report


@click.group()
def bench() -> None:
    """Measure a mirror.

    \b
    Examples:
      mirror bench dispatch
      mirror bench dispatch --url http://mirror:11434 --model llama3.2 --greedy 50
    """


@bench.command()
@click.option("--users", type=click.IntRange(1, 1000), default=20, show_default=True, help="Equal users.")
@click.option("--requests", type=click.IntRange(1), default=200, show_default=True, help="Requests of all of them.")
@click.option("--greedy", type=click.IntRange(0), default=300, show_default=True, help="Requests of one more, at once.")
@click.option("--service", default="20ms", show_default=True, help="Time that the made-up Ollama takes for one.")
@click.option("--fairness", type=click.Choice(["cost", "turns"]), default="cost", show_default=True)
@click.option("--url", metavar="URL", help="A running mirror, in place of one made up for this.")
@click.option("--model", default="demo", show_default=True, help="The model to ask there.")
@json_option
@ending_well
def dispatch(
    users: int, requests: int, greedy: int, service: str, fairness: str, url: str | None, model: str, as_json: bool
) -> None:
    """See how fairly turns are given: many users with a few requests each, beside a greedy one.

    First the equal users alone, each asking one request after the other; then again while one more user throws in all
    of theirs at once. Shares are what each had had when the first equal user was done.

    \b
    Examples:
      mirror bench dispatch --users 20 --requests 200
      mirror bench dispatch --fairness turns --service 5ms --json
    """
    from mirror.app.logs import set_up_logs

    set_up_logs(LoggingSettings(level=LogLevel.WARNING))
    try:
        service_s = parse_duration(service)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--service") from error
    report = run(_dispatch(users, max(1, requests // users), greedy, service_s, fairness, url, model))
    if as_json:
        plain(json.dumps(asdict(report), indent=2))
    else:
        _print(report, service_s if url is None else None)
    if report.refused or report.lost or report.doubled:
        fail("requests were refused, lost or answered twice: see above", 1)


async def _dispatch(
    users: int, each: int, greedy: int, service_s: float, fairness: str, url: str | None, model: str
) -> "Report":
    from mirror.demo.stress import Load, made_up, measured

    load = Load(users, each, greedy, model)
    if url is not None:
        return await measured(load, url.rstrip("/"))
    async with made_up(service_s, fairness) as (made, ollama):
        return await measured(load, made, lambda: Counter(ollama.prompts))


def _print(report: "Report", service_s: float | None) -> None:
    rows = [
        (user, str(count), f"{1000 * mean:.0f} ms", f"{1000 * longest:.0f} ms")
        for user, (count, mean, longest) in report.waits.items()
    ]
    columns(("USER", "ANSWERED", "MEAN", "LONGEST"), rows)
    alone = f", {report.mean_s / report.alone_s:.3f} of {1000 * report.alone_s:.0f} ms alone" if report.alone_s else ""
    bound = f", {report.longest_s / (report.load.users * service_s):.2f} x users x service" if service_s else ""
    plain("")
    plain(f"Jain's index over {len(report.waits)} shares: {report.index:.4f}")
    plain(f"mean of the equal users: {1000 * report.mean_s:.0f} ms{alone}")
    plain(f"longest of theirs: {1000 * report.longest_s:.0f} ms{bound}")
    plain(f"mean of the greedy one: {1000 * report.greedy_mean_s:.0f} ms")
    known = f"lost {report.lost}, doubled {report.doubled}, " if report.lost is not None else ""
    plain(f"{known}refused {report.refused}")
