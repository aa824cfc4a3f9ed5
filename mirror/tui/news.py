"""News in one sentence each, and what is new between two looks. Pure."""

from collections.abc import Iterator
from typing import Any

from mirror.tui.reading import Reading, View
from mirror.wording import harmless, lasting, size

_COUNTED = frozenset({"progress", "queue", "turns", "prompts"})
"""Kinds that only count what the panes show anyway."""
_NAMES = ("name", "model", "user", "id", "backend", "node", "what", "digest")


def sentence(said: View) -> str | None:
    """Write what an event of /mirror/v1/events says; None for what the panes show anyway."""
    kind = str(said.get("kind", ""))
    if not kind or kind in _COUNTED:
        return None
    return harmless(_written(kind, said))


def _written(kind: str, said: View) -> str:
    name = str(said.get("name") or said.get("id") or "")
    match kind:
        case "fill_started":
            return f"{_blob(said)} begins to come in, {_size(said, 'size')}"
        case "fill_ended" if said.get("error"):
            return f"{_blob(said)} did not come: {said['error']}"
        case "fill_ended":
            return f"{_blob(said)} is here: {_size(said, 'size')} in {lasting(_number(said, 'duration_s'))}"
        case "pull_ended":
            why = f": {said['error']}" if said.get("error") else ""
            return f"the pull of {name} is {said.get('outcome') or 'over'}{why}"
        case "answered":
            on = f" by {said['backend']}" if said.get("backend") else ""
            took = f"{said.get('made') or 0} tokens in {lasting(_number(said, 'ran_s'))}"
            return f"{said.get('user') or 'somebody'} was answered{on}: {said.get('model') or ''}, {took}"
        case "model_stored":
            return f"{name} is in the store, {_size(said, 'size')}"
        case "model_removed":
            return f"{name} was removed, {_size(said, 'freed')} freed: {said.get('why') or said.get('reason')}"
        case "state":
            return f"{name} is {said.get('state')}"
        case _:
            about = next((str(said[one]) for one in _NAMES if said.get(one)), "")
            return f"{kind.replace('_', ' ')} {about}".rstrip()


def changes(before: Reading, now: Reading) -> Iterator[str]:
    """Yield what is new at a look: for mirrors that do not tell their news."""
    yield from _fills(before, now)
    yield from _jobs(before, now)
    blocked = {one.name: one.blocked for one in before.users}
    for user in now.users:
        if blocked.get(user.name, user.blocked) != user.blocked:
            yield f"{user.name} is {'blocked' if user.blocked else 'served again'}"
    states = {one.id: one.state for one in before.backends}
    for backend in now.backends:
        if states.get(backend.id, backend.state) != backend.state:
            yield f"{backend.id} is {backend.state}"


def _fills(before: Reading, now: Reading) -> Iterator[str]:
    then, here = {one.digest for one in before.fills}, {one.digest for one in now.fills}
    for fill in before.fills:
        if fill.digest not in here:
            yield f"{fill.short} comes in no more"
    for fill in now.fills:
        if fill.digest not in then:
            yield f"{fill.short} begins to come in, {size(fill.size)}"


def _jobs(before: Reading, now: Reading) -> Iterator[str]:
    then, here = {one.id: one for one in before.jobs}, {one.id for one in now.jobs}
    for job in before.jobs:
        if job.id not in here:
            yield f"the pull of {job.name} is over"
    for job in now.jobs:
        if job.id not in then:
            yield f"{job.name} is queued"
        elif then[job.id].state != job.state:
            yield f"{job.name} is {job.state}"


def _blob(said: View) -> str:
    return str(said.get("digest", "")).removeprefix("sha256:")[:12]


def _number(said: View, key: str) -> float:
    found: Any = said.get(key)
    return found if isinstance(found, int | float) else 0


def _size(said: View, key: str) -> str:
    return size(_number(said, key))
