"""Verification finds every broken promise, and nothing else."""

import asyncio
import os
from pathlib import Path

import pytest

from mirror.store import Layout, Problem, Progress, verify
from mirror.store.verify import running_verify
from mirror.values import Digest
from tests.stored import CONFIG, NAME, WEIGHTS, described, keep, made, manifest_of, opened, problems, publish

BLOB = f"blobs/{Digest.of(WEIGHTS).filename}"
TINY = "manifests/registry.ollama.ai/library/tiny/latest"


@pytest.fixture
async def layout(tmp_path: Path) -> Layout:
    """A sound store with one model."""
    async with opened(tmp_path) as store:
        await keep(store, NAME, WEIGHTS)
        return store.layout


async def test_a_sound_store_has_no_problem_and_every_byte_was_hashed(layout: Layout) -> None:
    """Progress ends at the whole."""
    steps = list(verify(layout))
    total = len(WEIGHTS) + len(CONFIG)
    assert all(isinstance(step, Progress) for step in steps)
    assert steps[-1] == Progress(total, total)


async def test_an_empty_or_missing_store_has_no_problem(tmp_path: Path) -> None:
    """There is nothing that could be wrong."""
    assert list(verify(made(tmp_path))) == []
    assert list(verify(Layout(tmp_path / "no", tmp_path / "where"))) == []


async def test_a_changed_byte_is_found(layout: Layout) -> None:
    """Disks do change bytes."""
    layout.blob(Digest.of(WEIGHTS)).write_bytes(b"W" + WEIGHTS[1:])
    [problem] = problems(layout)
    assert problem.startswith(f"{BLOB} has the wrong bytes: they hash to sha256:")


async def test_a_missing_blob_is_found(layout: Layout) -> None:
    """Promise 2 is broken."""
    layout.blob(Digest.of(WEIGHTS)).unlink()
    assert problems(layout) == [f"{TINY} names {Digest.of(WEIGHTS)}, which is not here"]


async def test_a_size_that_does_not_fit_is_found(layout: Layout) -> None:
    """The blob is right and the manifest is wrong."""
    layout.manifest(NAME).write_bytes(manifest_of(layers=[described(WEIGHTS, size=5)]).raw)
    assert problems(layout) == [f"{TINY} names {Digest.of(WEIGHTS)} with 5 bytes; it has {len(WEIGHTS)}"]


@pytest.mark.parametrize("name", ["x", f"sha256:{'a' * 64}", f"sha256-{'a' * 64}-partial"])
async def test_a_file_among_the_blobs_without_a_blobs_name_is_found(layout: Layout, name: str) -> None:
    """Ollama would delete it."""
    (layout.blobs / name).write_bytes(b"?")
    assert problems(layout) == [f"blobs/{name} is no blob: its name is no digest as Ollama writes it"]


async def test_a_blob_under_another_spelling_of_its_digest_is_not_the_blob(layout: Layout) -> None:
    """No reader would find it there."""
    name = Digest.of(WEIGHTS).filename
    (layout.blobs / name).rename(layout.blobs / name.upper().replace("SHA", "sha"))
    assert len(problems(layout)) == 2


async def test_what_is_no_file_is_found_and_not_waited_for(layout: Layout) -> None:
    """Reading a pipe would never end."""
    os.mkfifo(layout.blob(Digest.of(b"pipe")))
    layout.blob(Digest.of(b"folder")).mkdir()
    os.mkfifo(layout.manifest(NAME.with_tag("pipe")))
    layout.manifest(NAME.with_tag("gone")).symlink_to("nowhere")
    found = problems(layout)
    assert sum("has the name of a blob and is no file" in one for one in found) == 2
    assert sum("is no manifest" in one for one in found) == 2
    assert len(found) == 4


@pytest.mark.parametrize("path", ["h/ns/m", "h/ns/m/t/deeper", "h/ns/m/.t", "h/n.s/m/t", "h/ns/m/t"])
async def test_what_is_no_manifest_in_the_tree_is_found(layout: Layout, path: str) -> None:
    """Ollama skips its tidying, or stops listing, for such files."""
    (layout.manifests / path).parent.mkdir(parents=True)
    (layout.manifests / path).write_bytes(b"?")
    [problem] = problems(layout)
    assert problem.startswith(f"manifests/{path} is no manifest")


async def test_what_goes_away_meanwhile_is_no_problem(layout: Layout) -> None:
    """A store in use changes while it is looked at: a removal takes the manifest first, then the blobs."""
    for number in range(20):
        publish(layout, f"{number}".encode())
    steps = verify(layout)
    assert isinstance(next(steps), Progress)
    layout.manifest(NAME).unlink()
    for path in layout.blobs.iterdir():
        path.unlink()
    assert not [step for step in steps if isinstance(step, Problem)]


async def test_it_ends_soon_when_told_to(layout: Layout) -> None:
    """A store of terabytes takes hours."""
    answers = iter([False, True])
    assert len(list(verify(layout, lambda: next(answers)))) == 1
    assert list(answers) == []


async def test_it_runs_beside_the_loop_and_ends_with_its_context(layout: Layout) -> None:
    """A client that has seen enough must not leave a thread reading on."""
    layout.blob(Digest.of(WEIGHTS)).write_bytes(b"W" + WEIGHTS[1:])
    async with asyncio.timeout(10):
        async with running_verify(layout) as steps:
            found = [step async for step in steps if isinstance(step, Problem)]
        assert len(found) == 1
        async with running_verify(layout) as steps:
            assert isinstance(await anext(steps), Progress)
