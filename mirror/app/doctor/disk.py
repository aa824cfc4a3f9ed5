"""The store and its state on the disk: folders, room, what a crash left."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from mirror.app.doctor.finding import Finding, Verdict
from mirror.config import Settings, Share
from mirror.errors import StoreUnusable
from mirror.store import Layout, census, holder

_LITTLE_ROOM = 1_000_000_000


def folders(layout: Layout) -> Iterator[Finding]:
    """Look at the store's folders and the state's, and at who holds them."""
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


def room(layout: Layout, settings: Settings) -> Iterator[Finding]:
    """Look at what the store takes, and what the disk has left."""
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


def leftovers(layout: Layout) -> Iterator[Finding]:
    """Look for what is damaged, and what an end out of order left."""
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


def _nearest(folder: Path) -> Path:
    """The folder itself or, where it is not there yet, the one above it that is."""
    return next(one for one in (folder, *folder.parents) if os.path.exists(one))


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
