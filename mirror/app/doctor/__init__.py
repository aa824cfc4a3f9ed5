"""What may be wrong with a mirror on this machine, found without changing anything and without the store's lock."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from mirror.access import Seal
from mirror.app.doctor.certificates import ca
from mirror.app.doctor.disk import folders, leftovers, room
from mirror.app.doctor.finding import Finding, Verdict
from mirror.app.doctor.network import upstreams
from mirror.app.doctor.served import served
from mirror.app.doctor.service import database, descriptors, log_file, ollamas
from mirror.app.doctor.sharing import also_from, known, sharing
from mirror.app.neighbours import Neighbour
from mirror.config import NOT_YET, Settings, not_yet
from mirror.listen import Names
from mirror.store import Layout, holder

__all__ = ["Finding", "Verdict", "effects", "examine"]


async def examine(settings: Settings, neighbours: Iterable[Neighbour] | None = None) -> AsyncIterator[Finding]:
    """Look at everything, one finding or more for each matter. ``neighbours`` are the Ollamas of this machine.

    Reads the disk as ``census`` does, asks every upstream once, unless the mirror is offline, and the mirror that
    runs here, if one does, for a few bytes of one blob, which counts as a use of it.

    Raises:
        SettingsError: the further upstreams cannot be used as they are set.
    """
    cache = settings.cache
    layout = Layout(cache.directory.absolute(), cache.state_directory.absolute(), cache.shared_with_ollama)
    for finding in (*folders(layout), *room(layout, settings), *leftovers(layout), *effects(settings)):
        yield finding
    for finding in (*sharing(layout, known(neighbours)), *also_from(layout, cache.also_from)):
        yield finding
    for finding in ca(layout.state, Names.of(settings)):
        yield finding
    running = holder(layout.state / "lock")
    serves_at = running.url if running is not None else None
    yield await database(settings, layout.state, running=running is not None)
    yield descriptors(settings, running.pid if running is not None else None)
    for finding in log_file(settings):
        yield finding
    async for finding in ollamas(settings):
        yield finding
    if serves_at is not None:
        said, seal = settings.security.api_key, Seal.of_commands(layout.state)
        key = said.get_secret_value() if said is not None else seal.local_token if seal is not None else None
        async for finding in served(serves_at, key):
            yield finding
    if settings.offline:
        yield Finding("upstream", Verdict.OK, "not asked: the mirror is offline")
        return
    async for finding in upstreams(settings, layout.state, serves_at):
        yield finding


def effects(settings: Settings, keys: Sequence[str] = NOT_YET) -> Iterator[Finding]:
    """Look for settings among ``keys`` that are set and that this version does not act on."""
    idle = not_yet(settings, keys)
    for key in idle:
        yield Finding("settings", Verdict.WARNING, f"{key} has no effect in this version", "take it out")
    if not idle:
        yield Finding("settings", Verdict.OK, "all have an effect")
