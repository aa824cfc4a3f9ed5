"""What a mirror stands on besides its store: its database, its log file, files it may open, the Ollamas behind it."""

import os
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from mirror.app.doctor.finding import Finding, Verdict
from mirror.config import Settings
from mirror.db import look_at_database
from mirror.errors import MirrorError, SettingsError
from mirror.listen.sockets import files_for
from mirror.ollama import Backend, Ollama

_WHY_FEW = "raise it (LimitNOFILE= of the unit, ulimit -n), or lower listen.max_connections"


async def database(settings: Settings, state: Path, *, running: bool) -> Finding:
    """Look at the database as it is; a file that a running mirror writes is left to that."""
    url, file = settings.database.url, state / "mirror.db"
    if url is None and running:
        return Finding("database", Verdict.OK, "the mirror that runs here has its file open")
    if url is None and _size(file.with_name(f"{file.name}-wal")):
        return Finding("database", Verdict.OK, "it was not closed: the next start brings it in order")
    try:
        version = await look_at_database(url, file)
    except SettingsError as error:
        advice = "see to its server" if url else "the mirror puts it aside at its start and begins a new one"
        return Finding("database", Verdict.PROBLEM if url else Verdict.WARNING, error.problem, advice)
    if version is None:
        return Finding("database", Verdict.OK, "there is none yet: mirror serve makes it")
    return Finding("database", Verdict.OK, f"can be read; its schema is {version}")


def log_file(settings: Settings) -> Iterator[Finding]:
    """Look whether the log file can be written, and others put aside beside it."""
    file = settings.logging.file
    if file is None:
        return
    folder = file.absolute().parent
    there = file if file.exists() else folder
    if not os.access(there, os.W_OK) or not os.access(folder, os.W_OK | os.X_OK):
        said = f"{file} cannot be written, or no other put aside beside it"
        yield Finding("log", Verdict.PROBLEM, said, f"give {folder} to the user of the mirror, or set logging.file")
    else:
        yield Finding("log", Verdict.OK, f"{file} can be written, and put aside {settings.logging.backup_count} times")


def descriptors(settings: Settings, pid: int | None) -> Finding:
    """Look whether there may be as many connections as the settings let in; of process ``pid`` where one runs."""
    try:
        _, hard = resource.prlimit(pid or 0, resource.RLIMIT_NOFILE)
    except OSError:
        return Finding("files", Verdict.OK, "not looked at: the mirror that runs here is another user's")
    most = settings.listen.max_connections
    wanted = files_for(most)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        said = f"{hard} files may be open, {wanted} are wanted for listen.max_connections: {most}"
        return Finding("files", Verdict.WARNING, said, _WHY_FEW)
    return Finding("files", Verdict.OK, f"as many may be open as {most} connections want")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


async def ollamas(settings: Settings) -> AsyncIterator[Finding]:
    """Ask each Ollama that the settings name for its version."""
    proxy = settings.proxy
    named = [one.url for one in proxy.backends] or ([] if proxy.backend in ("auto", "none") else [proxy.backend])
    for url in named:
        backend = Backend(url, proxy.connect_timeout)
        try:
            yield Finding("ollama", Verdict.OK, f"{url} is Ollama {await Ollama(backend).version()}")
        except MirrorError as error:
            advice = "start it, or set proxy.backend (proxy.backends) to where it is"
            yield Finding("ollama", Verdict.PROBLEM, f"{url}: {error}", advice)
        finally:
            await backend.close()
