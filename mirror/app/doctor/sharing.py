"""Folders that the mirror has together with an Ollama, or reads of one."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mirror.app.doctor.finding import Finding, Verdict
from mirror.app.neighbours import Neighbour, installed, running
from mirror.store import Layout


def known(neighbours: Iterable[Neighbour] | None) -> list[Neighbour]:
    """Those that run; one whose environment is not ours to read is known by its unit, if there is one."""
    if neighbours is not None:
        return list(neighbours)
    unit, found = installed(), running()
    if unit is None:
        return found
    return [one if one.environment is not None else unit for one in found] or [unit]


def sharing(layout: Layout, neighbours: list[Neighbour]) -> Iterator[Finding]:
    """Look whether an Ollama has the store as its own, and would delete from it."""
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


def also_from(layout: Layout, folders: Iterable[Path]) -> Iterator[Finding]:
    """Look at the folders of others that are served from."""
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


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
