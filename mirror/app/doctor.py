"""What may be wrong with a mirror on this machine, found without changing anything and without the store's lock."""

import os
import pwd
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path

from mirror.app.neighbours import Neighbour, installed, running
from mirror.config import Settings, Share, not_yet
from mirror.errors import StoreUnusable, UpstreamError
from mirror.events import Events
from mirror.store import Layout, census, holder
from mirror.upstream import Upstream

_CLOCK_WARNING_S, _CLOCK_PROBLEM_S = 60.0, 3600.0
_LITTLE_ROOM = 1_000_000_000


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at one matter gave; ``advice`` says what to do, where there is something to be done."""

    matter: str
    verdict: Verdict
    said: str
    advice: str = ""


async def examine(settings: Settings, neighbours: Iterable[Neighbour] | None = None) -> AsyncIterator[Finding]:
    """Look at everything, one finding or more for each matter. ``neighbours`` are the Ollamas of this machine.

    Reads the disk as ``census`` does and asks the upstream once, unless the mirror is offline.
    """
    cache = settings.cache
    layout = Layout(cache.directory.absolute(), cache.state_directory.absolute(), cache.shared_with_ollama)
    for finding in (*_store(layout), *_room(layout, settings), *_leftovers(layout), *_settings(settings)):
        yield finding
    for finding in (*_sharing(layout, _known(neighbours)), *_also_from(layout, cache.also_from)):
        yield finding
    if settings.offline:
        yield Finding("upstream", Verdict.OK, "not asked: the mirror is offline")
        return
    async for finding in _upstream(settings, layout.state):
        yield finding


def _known(neighbours: Iterable[Neighbour] | None) -> list[Neighbour]:
    """Those that run; one whose environment is not ours to read is known by its unit, if there is one."""
    if neighbours is not None:
        return list(neighbours)
    unit, found = installed(), running()
    if unit is None:
        return found
    return [one if one.environment is not None else unit for one in found] or [unit]


def _store(layout: Layout) -> Iterator[Finding]:
    try:
        layout.check_apart()
    except StoreUnusable as error:
        yield Finding("store", Verdict.PROBLEM, str(error), "set cache.state to a folder beside the store")
    devices = {os.stat(_nearest(folder)).st_dev for folder in (layout.root, layout.state)}
    if len(devices) > 1:
        said = f"{layout.state} is on another file system than {layout.root}"
        yield Finding("state", Verdict.PROBLEM, said, "set cache.state to a folder on the same one: blobs are renamed")
    yield from (_folder("store", layout.root, (layout.blobs, layout.manifests)), _folder("state", layout.state, ()))
    held = holder(layout.state / "lock")
    if held is not None:
        yield Finding("lock", Verdict.OK, f"{held}{f', which serves at {held.url}' if held.url else ''}")


def _folder(matter: str, folder: Path, below: tuple[Path, ...]) -> Finding:
    if not os.path.exists(folder):
        if os.access(folder.parent, os.W_OK | os.X_OK):
            return Finding(matter, Verdict.WARNING, f"{folder} is not there yet", "mirror serve makes it")
        said = f"{folder} is not there and cannot be made"
        return Finding(matter, Verdict.PROBLEM, said, f"make {folder} and give it to the user of the mirror")
    for one in (folder, *below):
        if one != folder and not os.path.exists(one):
            continue
        if not one.is_dir() or not os.access(one, os.R_OK | os.W_OK | os.X_OK):
            said = f"{one}, of {_owner(one)}, cannot be read and written by {_user(os.geteuid())}"
            advice = "run the mirror as that user, or make the folder a group's that both are in (chmod -R g+rwX)"
            return Finding(matter, Verdict.PROBLEM, said, advice if one.is_dir() else "it must be a folder")
    return Finding(matter, Verdict.OK, f"{folder}, of {_owner(folder)}, can be read and written")


def _room(layout: Layout, settings: Settings) -> Iterator[Finding]:
    found, disk = census(layout), os.statvfs(_nearest(layout.root))
    size = sum(one.size for kind in (found.blobs, found.partials) for one in kind.values())
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    most, least = settings.cache.max_size, settings.cache.min_free
    wanted = int(whole * least.percent / 100) if isinstance(least, Share) else least or 0
    said = f"the store holds {_size(size)}, the disk has {_size(free)} left"
    if free < wanted:
        said += f", less than the {_size(wanted)} of cache.min_free"
        yield Finding("room", Verdict.WARNING, said, "mirror gc removes what was used least recently")
    elif most is not None and size > most:
        said += f"; cache.max_size is {_size(most)}"
        yield Finding("room", Verdict.WARNING, said, "mirror gc removes what was used least recently")
    elif most is not None and most > size + free - wanted:
        said += f", so cache.max_size ({_size(most)}) cannot be reached"
        yield Finding("room", Verdict.WARNING, said, "lower it, or models are passed through without being kept")
    elif free < _LITTLE_ROOM:
        yield Finding("room", Verdict.WARNING, said, "what does not fit is passed through without being kept")
    else:
        yield Finding("room", Verdict.OK, said)


def _leftovers(layout: Layout) -> Iterator[Finding]:
    found = census(layout)
    if found.quarantine:
        said = f"{len(found.quarantine)} damaged blobs were put aside in {layout.quarantine}"
        yield Finding("damage", Verdict.WARNING, said, "mirror repair fetches what models lack")
    if holder(layout.state / "lock") is not None:
        return
    temporary = _count(layout.temporary)
    if temporary:
        said = f"{temporary} files in {layout.temporary} were left by a mirror that did not end in order"
        yield Finding("leftovers", Verdict.WARNING, said, "the next start removes them")
    elif found.partials:
        size = sum(one.size for one in found.partials.values())
        said = f"{len(found.partials)} unfinished blobs, {_size(size)} of them here"
        yield Finding("leftovers", Verdict.OK, f"{said}; who asks for them goes on from there")
    else:
        yield Finding("leftovers", Verdict.OK, "none")


def _settings(settings: Settings) -> Iterator[Finding]:
    for key in not_yet(settings):
        yield Finding("settings", Verdict.WARNING, f"{key} has no effect in this version", "take it out")
    if not not_yet(settings):
        yield Finding("settings", Verdict.OK, "all have an effect")


def _sharing(layout: Layout, neighbours: list[Neighbour]) -> Iterator[Finding]:
    here = [one for one in neighbours if one.models is not None and _same(one.models, layout.root)]
    for one in here:
        if not layout.shared:
            said = f"{one.who} has the store as its OLLAMA_MODELS"
            yield Finding("ollama", Verdict.PROBLEM, said, "set cache.shared_with_ollama, or give one another folder")
        elif one.prunes:
            said = f"{one.who} has no OLLAMA_NOPRUNE: at its start it deletes blobs that no manifest names yet"
            yield Finding("ollama", Verdict.WARNING, said, "set OLLAMA_NOPRUNE=1 in its environment")
        else:
            yield Finding("ollama", Verdict.OK, f"{one.who} has the store as its OLLAMA_MODELS, and OLLAMA_NOPRUNE set")
    if here or not layout.shared:
        return
    unknown = [one for one in neighbours if one.models is None]
    if unknown or not neighbours:
        who = f"of {unknown[0].who} the environment cannot be read" if unknown else "no Ollama runs here now"
        said = f"cannot tell whether an Ollama has the store as its OLLAMA_MODELS: {who}"
        yield Finding("ollama", Verdict.WARNING, said, "run mirror doctor as root, or as its user, while it runs")
        return
    said = f"{neighbours[0].who} has its models in {neighbours[0].models}, not in {layout.root}"
    yield Finding("ollama", Verdict.WARNING, said, f"set OLLAMA_MODELS={layout.root} in its environment")


def _also_from(layout: Layout, folders: Iterable[Path]) -> Iterator[Finding]:
    for folder in folders:
        blobs, manifests = folder / "blobs", folder / "manifests"
        if _same(folder, layout.root):
            said = f"{folder} is the store itself, and is passed over"
            yield Finding("also_from", Verdict.WARNING, said, "take it out of cache.also_from")
        elif not all(one.is_dir() and os.access(one, os.R_OK | os.X_OK) for one in (blobs, manifests)):
            said = f"{folder} is not there, cannot be read, or has no blobs and manifests"
            yield Finding("also_from", Verdict.WARNING, said, "nothing is served from it until it is")
        else:
            yield Finding("also_from", Verdict.OK, f"{folder} can be read")


async def _upstream(settings: Settings, state: Path) -> AsyncIterator[Finding]:
    upstream = Upstream(settings.upstream, settings.upstream.key_file or state / "id_ed25519", Events())
    try:
        reply = await upstream.greeting()
    except UpstreamError as error:
        advice = "check the network, DNS and proxy of this machine, or set offline; what is stored is served meanwhile"
        yield Finding("upstream", Verdict.PROBLEM, f"{settings.upstream.url} does not answer: {error}", advice)
        return
    finally:
        await upstream.close()
    verdict = Verdict.OK if reply.status < 500 else Verdict.WARNING
    yield Finding("upstream", verdict, f"{settings.upstream.url} answers ({reply.status})")
    with suppress(ValueError):
        yield _clock(parsedate_to_datetime(reply.headers.get("Date", "")).timestamp() - time.time())


def _clock(ahead_s: float) -> Finding:
    off = abs(ahead_s)
    if off < _CLOCK_WARNING_S:
        return Finding("clock", Verdict.OK, f"within {off:.0f} seconds of the upstream's")
    verdict = Verdict.WARNING if off < _CLOCK_PROBLEM_S else Verdict.PROBLEM
    said = f"{off:.0f} seconds {'behind' if ahead_s > 0 else 'ahead of'} the upstream's"
    return Finding("clock", verdict, said, "set it (timedatectl set-ntp true): ages of models are told by it")


def _nearest(folder: Path) -> Path:
    """The folder itself or, where it is not there yet, the one above it that is."""
    return next(one for one in (folder, *folder.parents) if os.path.exists(one))


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _count(folder: Path) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _owner(path: Path) -> str:
    return _user(path.stat().st_uid)


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
