"""``mirror demo``."""

import asyncio
import json
from typing import Any

import click

from mirror.cli.options import ending_well, fail, json_option, run
from mirror.cli.text import columns, plain, progress_bars, size
from mirror.config import LoggingSettings, LogLevel, parse_size

_SLOWLY = 40_000_000
"""Bytes per second of what is to be watched."""


@click.command()
@click.option("--size", "model_size", default="400MB", show_default=True, help="How large the generated model is.")
@click.option("--port", default=0, help="Port of the demo's mirror; 0 lets the system choose.")
@click.option("--keep", is_flag=True, help="Stay up, to be looked at and pulled from; the first pull is slow.")
@json_option
@ending_well
def demo(model_size: str, port: int, keep: bool, as_json: bool) -> None:
    """See it work, without any internet.

    Makes a model, starts a small registry that holds it and a mirror in front, pulls the model twice the way
    Ollama does (HEAD, unranged GET, 16 ranges at once), checks every digest, and shows what each pull cost.

    \b
    Examples:
      mirror demo
      mirror demo --size 2GB --keep --port 11434

    With --keep the home page is there from the start, and the first pull comes in at 40 MB/s, so that it can be seen.
    """
    from mirror.app.logs import set_up_logs

    set_up_logs(LoggingSettings(level=LogLevel.WARNING))
    try:
        count = parse_size(model_size)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--size") from error
    good = run(_demo(count, port, keep=keep, as_json=as_json))
    if not good:
        fail("the pulls did not cost what they should: see above", 1)


async def _demo(count: int, port: int, *, keep: bool, as_json: bool) -> bool:
    from mirror.demo.run import Round, Stage, stage

    with progress_bars() as bars:
        bar = bars.add_task("making a model", total=count)

        async def pulled(on: Stage, title: str) -> Round:
            pulling = bars.add_task(title, total=on.model.size)
            return await on.pull(title, lambda more: bars.advance(pulling, more))

        async with stage(count, port, lambda more: bars.advance(bar, more), _SLOWLY if keep else None) as on:
            if keep and not as_json:
                plain(f"Watch it come in: {on.mirror_url}/")
            rounds = [await pulled(on, "first pull (miss)"), await pulled(on, "second pull (hit)")]
            bars.stop()
            first, second = (one.upstream_bytes for one in rounds)
            # one byte a blob is what asking for its size costs
            good = on.model.size <= first <= on.model.size + len(on.model.blobs) and second == 0
            _print(rounds, on.model.size, as_json=as_json)
            if keep and good:
                _invite(on.mirror_url)
                await asyncio.Event().wait()
    return good


def _print(rounds: list[Any], model_size: int, *, as_json: bool) -> None:
    if as_json:
        plain(
            json.dumps(
                [
                    {
                        "title": one.title,
                        "seconds": round(one.report.seconds, 3),
                        "bytes": one.report.bytes,
                        "bytes_per_s": round(one.rate),
                        "upstream_bytes": one.upstream_bytes,
                        "requests": len(one.report.requests),
                    }
                    for one in rounds
                ]
            )
        )
        return
    plain(f"A model of {size(model_size)}, pulled twice through the mirror, every digest checked:\n")
    columns(
        ("", "TIME", "SPEED", "FROM UPSTREAM"),
        [(one.title, f"{one.report.seconds:.2f} s", f"{size(one.rate)}/s", size(one.upstream_bytes)) for one in rounds],
    )


def _invite(url: str) -> None:
    authority = url.partition("://")[2]
    plain(f"\nThe mirror stays at {url} until Ctrl-C. To pull from it with your own Ollama:")
    plain(f"  ollama pull --insecure {authority}/library/demo")
    plain(f"and look at {url}/ with a browser, or:")
    plain(f"  curl {url}/mirror/stats")
