"""Batches that outlive the process, and the lines of their files."""

import asyncio
import json
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mirror.batches import Files
from mirror.batches.entries import Entries, counted
from mirror.batches.pages import Asked
from mirror.db import open_database
from tests.access import Clock
from tests.batches import CHAT, chat, using
from tests.fakes.ollama import running_fake_ollama
from tests.fakes.registry import running_fake_registry
from tests.process import serving
from tests.support import SOON_S


async def test_after_a_kill_each_line_is_answered_once(tmp_path: Path) -> None:
    """Twice killed in the middle: what was answered is not asked again, what ran is, and the output has each once."""
    async with running_fake_registry() as registry, running_fake_ollama(tmp_path / "ollama") as ollama:
        ollama.folder.add("m")
        env = {"OLLAMA_URL": ollama.url, "OLLAMA_MIRROR_DISPATCH_SLOTS": "2", "OLLAMA_MIRROR_PROMPTS_BATCH_RUN": "now"}
        store, ids = tmp_path / "store", [str(number) for number in range(40)]
        id_ = ""
        for answered in (5, 15):
            ollama.pace.hold()
            ollama.pace.release(40)
            async with serving(store, registry.url, env=env) as (url, process):
                me = using(url)
                async with me.client, asyncio.timeout(SOON_S):
                    if not id_:
                        lines = [chat(one, one) for one in ids]
                        id_ = (await me.begin(*lines[:20], b"{", *lines[20:], b"")).id

                    await me.until_answered(id_, answered)
                process.kill()
                await process.wait()
        ollama.pace.hold()
        ollama.pace.release(10_000)
        async with serving(store, registry.url, env=env) as (url, _):
            me = using(url)
            async with me.client, asyncio.timeout(30):
                done = await me.until(id_, "completed")
                assert done.request_counts is not None
                assert done.request_counts.model_dump() == {"total": 41, "completed": 40, "failed": 1}
                assert [one["custom_id"] for one in await me.lines(done.output_file_id)] == ids
                assert len(await me.lines(done.error_file_id)) == 1
        asked = Counter(json.loads(one.body)["messages"][0]["content"] for one in ollama.troubles.of(CHAT))
        assert set(asked) == set(ids)
        assert sum(asked.values()) <= 40 + 2 * 2


LINES = st.sampled_from([b"", b" ", b"{}", b"x" * 30, b"\r", b'{"custom_id": "a"}'])


@given(st.lists(LINES), st.sampled_from([b"", b"\n"]))
def test_lines_are_counted_as_they_are_read(lines: list[bytes], end: bytes) -> None:
    """Empty ones are none, and the last need not end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "in.jsonl")
        path.write_bytes(b"\n".join(lines) + end)
        found = []
        with Entries(path, CHAT, 20) as entries:
            while some := entries.some():
                found += some
        assert [one.number for one in found] == list(range(1, counted(path) + 1))
        codes = [json.loads(one.problem or "")["error"]["code"] for one in found]
        wanted = {b"{}": "missing_custom_id", b"x" * 30: "line_too_long", b'{"custom_id": "a"}': "mismatched_endpoint"}
        first = [wanted[one] for one in lines if one.strip()]
        seen = [index for index, one in enumerate(first) if one == "mismatched_endpoint"]
        for index in seen[1:]:
            first[index] = "duplicate_custom_id"
        assert codes == first


async def test_files_without_rows_are_removed_at_the_start_and_old_ones_in_time(tmp_path: Path) -> None:
    """A process that died between the two leaves nothing; what a batch has still to read stays."""
    clock = Clock()
    engine = await open_database(None, tmp_path / "db")
    folder = tmp_path / "files"
    try:
        with ThreadPoolExecutor(1) as threads:

            def files() -> Files:
                return Files(engine, folder, threads, largest=100, most_bytes=150, now=clock.instant)

            first = files()
            await first.load()
            kept = []
            for _ in range(2):
                async with first.draft(bounded=True) as draft:
                    await draft.write(b"x" * 50)
                    kept.append(await first.keep(draft, "ann", "a", "batch"))
            async with first.draft(bounded=False) as draft:
                await draft.write(b"y" * 1000)
                await draft.place()
            (folder / "file-half.part").write_bytes(b"z")
            again = files()
            await again.load()
            assert {path.name for path in folder.iterdir()} == {one.id for one in kept}
            clock.at += 100
            await again.forget_before(clock.instant() - timedelta(seconds=99), {kept[0].id})
            assert (await again.page(Asked(10), None, None))[0] == kept[:1]
            assert [path.name for path in folder.iterdir()] == [kept[0].id]
    finally:
        await engine.dispose()
