"""``mirror pulls list|add|now|move|cancel|retry|pause|resume|run|history``: the queue of pulls."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from mirror.cli.options import Where, on_a_mirror, run
from mirror.cli.reach import Reached, reached
from mirror.cli.text import ago, columns, plain, size
from mirror.wording import when

View = dict[str, Any]


@click.group()
def pulls() -> None:
    """The queue of pulls: models that somebody wants, fetched in the quiet hours (pulls.windows).

    \b
    Examples:
      mirror pulls add llama3.2 qwen3:8b
      mirror pulls list
      mirror pulls now llama3.2
      mirror pulls run
    """


@pulls.command(name="list")
@on_a_mirror
def list_(where: Where) -> None:
    """List the jobs under way in their order, and say when the next window opens.

    \b
    Examples:
      mirror pulls list
      mirror pulls list --json | jq -r '.jobs[] | select(.error) | .name'
    """
    view = _on(where, lambda mirror: mirror.queue())
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    if view["jobs"]:
        columns(["", "NAME", "STATE", "SIZE", "ASKED BY", "ASKED", "NOTE"], [_row(job) for job in view["jobs"]])
    plain(when(view))


@pulls.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--now", "at_once", is_flag=True, help="Wait for no window.")
@click.option("--priority", type=click.IntRange(0, 1000), default=0, help="Go before jobs of less.", show_default=True)
@on_a_mirror
def add(where: Where, names: Sequence[str], at_once: bool, priority: int) -> None:
    """Want models: they are fetched in the next window, or joined where they are queued already.

    \b
    Examples:
      mirror pulls add llama3.2
      mirror pulls add --now --priority 10 qwen3:8b
    """

    async def work(mirror: Reached) -> list[View]:
        return [await mirror.queue_add(name, priority=priority, at_once=at_once) for name in names]

    for view in _told(where, _on(where, work)):
        job = view["job"]
        place = f"at place {job['position']}" if job["position"] else job["state"]
        plain(f"{job['name']} is {'queued' if view['new'] else 'queued already'}, {place}")


@pulls.command()
@click.argument("jobs", nargs=-1, required=True)
@on_a_mirror
def now(where: Where, jobs: Sequence[str]) -> None:
    """Fetch queued models now, whatever the hour; a job is said by its name or id.

    \b
    Example:
      mirror pulls now llama3.2
    """
    _act(where, "now", jobs, "{name} waits for no window")


@pulls.command()
@click.argument("jobs", nargs=-1, required=True)
@on_a_mirror
def cancel(where: Where, jobs: Sequence[str]) -> None:
    """Take jobs back; what has come of them stays for who asks next.

    \b
    Example:
      mirror pulls cancel llama3.2
    """
    _act(where, "cancel", jobs, "{name} is not wanted any more")


@pulls.command()
@click.argument("jobs", nargs=-1, required=True)
@on_a_mirror
def retry(where: Where, jobs: Sequence[str]) -> None:
    """Have jobs done after all that failed or were taken back; those that wait after a failure are tried next.

    \b
    Example:
      mirror pulls retry llama3.2
    """
    _act(where, "retry", jobs, "{name} is tried again")


@pulls.command()
@click.argument("job")
@click.argument("position", type=click.IntRange(1))
@on_a_mirror
def move(where: Where, job: str, position: int) -> None:
    """Put a job that waits at another place, 1 being the next.

    \b
    Example:
      mirror pulls move qwen3:8b 1
    """
    for view in _told(where, [_on(where, lambda mirror: mirror.queue_act("move", job, position))]):
        plain(f"{view['job']['name']} is at place {view['job']['position']}")


@pulls.command()
@on_a_mirror
def pause(where: Where) -> None:
    """Begin no job any more, also after a restart; those being fetched go on.

    \b
    Example:
      mirror pulls pause
    """
    _switch(where, "pause")


@pulls.command()
@on_a_mirror
def resume(where: Where) -> None:
    """Begin jobs again.

    \b
    Example:
      mirror pulls resume
    """
    _switch(where, "resume")


@pulls.command(name="run")
@on_a_mirror
def run_(where: Where) -> None:
    """Fetch everything that is queued now, whatever the hour.

    \b
    Example:
      mirror pulls run
    """
    _switch(where, "run")


@pulls.command()
@click.option("-n", "most", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@on_a_mirror
def history(where: Where, most: int) -> None:
    """List jobs that are over, the latest first.

    \b
    Examples:
      mirror pulls history
      mirror pulls history -n 200 --json | jq -r '.jobs[] | select(.state == "failed") | .error'
    """
    view = _on(where, lambda mirror: mirror.queue_history(most))
    if where.as_json:
        plain(json.dumps(view, indent=2))
        return
    rows = [
        [job["name"], job["state"], _size(job), ago(job["finished_at"]), job["error"] or ""] for job in view["jobs"]
    ]
    columns(["NAME", "STATE", "SIZE", "ENDED", "NOTE"], rows)


def _on(where: Where, work: Callable[[Reached], Awaitable[Any]]) -> Any:
    async def reach() -> Any:
        async with reached(where.settings, where.server, "pulls", create=True) as mirror:
            return await work(mirror)

    return run(reach())


def _told(where: Where, views: list[View]) -> list[View]:
    """Print the views as JSON if that is wanted; return those that are still to be said in words."""
    if not where.as_json:
        return views
    plain(json.dumps(views if len(views) != 1 else views[0], indent=2))
    return []


def _act(where: Where, action: str, jobs: Sequence[str], said: str) -> None:
    async def work(mirror: Reached) -> list[View]:
        return [await mirror.queue_act(action, job) for job in jobs]

    for view in _told(where, _on(where, work)):
        plain(said.format(name=view["job"]["name"]))


def _switch(where: Where, action: str) -> None:
    for view in _told(where, [_on(where, lambda mirror: mirror.queue_act(action))]):
        plain(when(view))


def _row(job: View) -> list[str]:
    place = str(job["position"]) if job["position"] else "-"
    state = job["state"] if job["done"] is None else f"{job['state']} {_percent(job)}"
    note = job["error"] or ("waits for no window" if job["at_once"] else "")
    return [place, job["name"], state, _size(job), ", ".join(job["requesters"]), ago(job["created_at"]), note]


def _percent(job: View) -> str:
    return f"{100 * job['done'] // job['size']}%" if job["size"] else "0%"


def _size(job: View) -> str:
    return size(job["size"]) if job["size"] is not None else "-"
