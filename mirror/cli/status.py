"""``mirror status``: all that one wants to know at a glance, on one screen."""

import json
from typing import Any

import click

from mirror import __version__
from mirror.cli.options import Where, on_a_mirror, run
from mirror.cli.reach import reached
from mirror.cli.text import plain, size
from mirror.store import holder
from mirror.wording import when

View = dict[str, Any]

_COMMANDS = (
    ("fetch a model tonight", "mirror pulls add llama3.2"),
    ("fetch it now", "mirror prefetch llama3.2"),
    ("see the queue", "mirror pulls list"),
    ("work it off now", "mirror pulls run"),
    ("see what is here", "mirror list"),
    ("say how to use it", "mirror setup"),
    ("look for trouble", "mirror doctor"),
)


@click.command()
@on_a_mirror
def status(where: Where) -> None:
    """Say on one screen how the mirror is: what serves, the queue and its next window, the store, the disk, where
    things are, and the commands one needs most.

    \b
    Examples:
      mirror status
      mirror status --json | jq .queue.counts
    """
    view = run(_status(where))
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    for name, value in _facts(view).items():
        plain(f"{name:<11}{value}")
    plain("")
    for what, command in _COMMANDS:
        plain(f"to {what:<24}{command}")


async def _status(where: Where) -> View:
    state = where.settings.cache.state_directory
    held = None if where.server else holder(state / "lock")
    async with reached(where.settings, where.server, "status", create=False) as mirror:
        usage, queue = await mirror.usage(), await mirror.queue()
    return {
        "version": __version__,
        "url": where.server or (held.url if held is not None else None),
        "queue": {name: queue[name] for name in ("counts", "paused", "open", "opens_at", "closes_at", "rates")},
        "store": usage,
        "state": None if where.server else str(state.absolute()),
        "settings": None if where.server or where.file is None else str(where.file.absolute()),
    }


def _facts(view: View) -> dict[str, str]:
    store, counts = view["store"], view["queue"]["counts"]
    of_what = f" of {size(store['max_size'])}" if store["max_size"] is not None else ""
    used = 100 * (store["disk_size"] - store["disk_free"]) // store["disk_size"] if store["disk_size"] else 0
    shown = ("pending", "downloading", "delivering", "completed", "failed")
    serving = f"serves at {view['url']}" if view["url"] else "does not run; mirror serve starts it"
    models = f"{store['models']} model{'' if store['models'] == 1 else 's'}"
    facts = {
        "mirror": f"{view['version']}, {serving}",
        "window": when(view["queue"]),
        "queue": ", ".join(f"{counts[state]} {state}" for state in shown),
        "store": f"{models}, {size(store['size'])}{of_what}, in {store['directory']}",
        "disk": f"{used}% used, {size(store['disk_free'])} free",
    }
    if limits := _limits(view["queue"]["rates"]):
        facts["rate"] = limits
    if store["damaged_models"]:
        facts["damaged"] = f"{', '.join(store['damaged_models'])}; mirror repair fetches what they lack"
    if view["state"] is not None:
        facts["state"] = f"{view['state']} (keys, database, what is unfinished)"
        facts["settings"] = view["settings"] or "defaults and environment; mirror config show prints them"
    return facts


def _limits(rates: View) -> str:
    """Say which limits hold at this hour; nothing where there are none."""
    said = (("upstream", "from upstream"), ("pulls", "for what nobody reads meanwhile"))
    return ", ".join(f"{size(rates[name])}/s {what}" for name, what in said if rates[name] is not None)
