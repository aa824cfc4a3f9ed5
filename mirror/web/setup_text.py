"""The ways in, as JSON for programs and as text for terminals. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mirror.web.setup import Facts, Step, Way
from mirror.web.steps_to import pairs


def setup_view(facts: Facts, shown: Sequence[Way]) -> dict[str, Any]:
    """Return what programs get. ``id`` is the same for every answer of one running mirror, and no other's."""
    return {
        "id": facts.id,
        "version": facts.version,
        "url": facts.url,
        "proxy": facts.proxy.url,
        "registry": facts.main,
        "mirrored": facts.hosts,
        "ca": facts.fingerprint
        and {"url": f"{facts.url}/mirror/ca.pem", "sha256": facts.fingerprint, "uncovered": facts.uncovered},
        "elsewhere": facts.elsewhere,
        "ways": [asdict(one) | {"ready": one.ready} for one in shown],
    }


def setup_text(facts: Facts, shown: Sequence[Way]) -> str:
    """Return what people read in a terminal: what is ready, then each way's lines."""
    return "\n".join([*_head(facts, shown), *(line for way in shown for line in _way(way))]) + "\n"


def notes(facts: Facts) -> Iterator[str]:
    """Yield what a reader must know before any line."""
    if facts.elsewhere:
        yield (
            f"You asked by an address of this machine alone, so these lines are for it and not for containers. "
            f"For other machines ask {' or '.join(f'{one}/mirror/setup' for one in facts.elsewhere)}"
        )
    if facts.fingerprint and facts.uncovered:
        yield f"The CA may not speak for {', '.join(facts.uncovered)}: run mirror tls renew on the mirror."


def ca_text(facts: Facts) -> str:
    """Return one line on the CA."""
    if facts.fingerprint is None:
        return "none yet; mirror tls init on the mirror makes it"
    return f"{facts.url}/mirror/ca.pem, SHA-256 {pairs(facts.fingerprint)}"


def _head(facts: Facts, shown: Sequence[Way]) -> Iterator[str]:
    yield f"mirror {facts.version} at {facts.url}"
    yield f"stands in for {', '.join(facts.hosts)}"
    yield f"CA: {ca_text(facts)}"
    yield from notes(facts)
    yield "Variables belong to the Ollama server (ollama serve, its unit or container), not to the command ollama pull."
    yield ""
    yield f"{'way':<12} {'ready':<6} what it is"
    for way in shown:
        yield f"{way.key:<12} {'yes' if way.ready else 'no':<6} {way.title}"
    yield ""
    yield f"One way alone: curl '{facts.url}/mirror/setup?way={shown[0].key}'"
    yield f"Which work on your machine: mirror setup --server {facts.url}"


def _way(way: Way) -> Iterator[str]:
    yield ""
    yield f"== {way.key} =="
    yield f"{way.title}."
    if not way.ready:
        yield f"NOT READY: {way.lacks}"
    yield from (f"Needs: {one}" for one in way.needs)
    yield from _steps(way.steps)
    yield "Try it:"
    yield from (f"    {line}" for line in way.attempt)
    yield from (f"Does not cover: {one}" for one in way.leaves_out)
    yield "To undo it:"
    yield from _steps(way.undo, "  ")


def _steps(steps: Iterable[Step], margin: str = "") -> Iterator[str]:
    for step in steps:
        yield f"{margin}{step.where}:"
        yield from (f"{margin}    {line}" for line in step.lines)
